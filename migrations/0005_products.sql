-- Lists of products: their orders, and the search in their names (docs/adr/0007).

-- What names are compared in: composed, so that Korean from a system that takes syllables apart is found, too, and in
-- lower case.
CREATE FUNCTION search_form(written text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN lower(normalize(written, NFC));

-- Every character and every two that follow one another.
CREATE FUNCTION name_grams(name text) RETURNS text[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN ARRAY(
        SELECT DISTINCT substr(name, at, size)
        FROM generate_series(1, char_length(name)) AS at, generate_series(1, 2) AS size
        WHERE at + size - 1 <= char_length(name)
    );

-- Rewrites the table, once.
ALTER TABLE products ADD COLUMN search_name text GENERATED ALWAYS AS (search_form(name)) STORED;

-- Not fastupdate: products are changed seldom and looked for often.
CREATE INDEX products_name ON products USING gin (name_grams(search_name)) WITH (fastupdate = off);
CREATE INDEX products_price ON products (price, product_id);
CREATE INDEX products_category ON products (category, product_id);
-- The planner knows how rare a part of a name is only from this.
ANALYZE products;
