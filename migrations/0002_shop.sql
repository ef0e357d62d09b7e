-- The tables of the shop.
--
-- A table of state has one row for each aggregate: its key, how often it was written, its document, and what of the document
-- is large and seldom changes: as it was written, since it is read whole far more often than the database looks into it. The generated columns are what queries, indexes and checks need. Those that are checked are NOT NULL: a
-- check passes where a member is missing. Times in documents are microseconds since the epoch.

CREATE TABLE users (
    user_id    uuid        PRIMARY KEY,
    name       text,
    email      text        UNIQUE,
    created_at timestamptz NOT NULL,
    erased_at  timestamptz,
    CHECK ((erased_at IS NULL) = (name IS NOT NULL) AND (erased_at IS NULL) = (email IS NOT NULL))
);

-- What people have said in words of their own about what belongs to a user: why an order is cancelled or a coupon taken away, which number a
-- carrier has for a shipment. Neither the log nor documents have it, and it goes when the user is erased (docs/adr/0032).
CREATE TABLE notes (
    -- The order, the user's coupon or the shipment.
    about   uuid NOT NULL,
    -- As it is called where it is shown.
    kind    text NOT NULL CHECK (kind IN ('reason', 'tracking_number')),
    -- To whom that belongs.
    user_id uuid NOT NULL REFERENCES users,
    words   text NOT NULL,
    PRIMARY KEY (about, kind)
);
CREATE INDEX notes_user ON notes (user_id);

-- The server would keep samples of these columns, also of what is erased.
ALTER TABLE users ALTER name SET STATISTICS 0, ALTER email SET STATISTICS 0;
ALTER TABLE notes ALTER words SET STATISTICS 0;

-- A key is valid until it expires, its grace ends or it is revoked, whichever comes first.
CREATE TABLE api_keys (
    -- SHA-256 of the key; a random key of 256 bits needs no slow hash.
    key_hash   bytea       PRIMARY KEY CHECK (octet_length(key_hash) = 32),
    -- By which people name it.
    key_id     uuid        NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    user_id    uuid        REFERENCES users,
    scope      text        NOT NULL CHECK (scope IN ('customer', 'admin')),
    -- Who has an administrator's key is called so by every audit.
    name       text        NOT NULL CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,29}$'),
    created_at timestamptz NOT NULL,
    expires_at timestamptz CHECK (expires_at > created_at),
    -- Until when a key that was replaced is still good.
    replaced_until timestamptz,
    -- Where it is there, the key is good no more, whatever time it is by anybody's clock.
    revoked_at timestamptz,
    CHECK ((scope = 'customer') = (user_id IS NOT NULL))
);
CREATE INDEX api_keys_user ON api_keys (user_id);
-- One key has the name of an administrator. One that is replaced gives the name up at once, also while it is still good.
CREATE UNIQUE INDEX api_keys_name ON api_keys (name)
    WHERE scope = 'admin' AND replaced_until IS NULL AND revoked_at IS NULL;

-- The first answers to requests that may be repeated.
CREATE TABLE idempotency_keys (
    -- Derived from the caller, the route and the key: three texts would cost twice as much to look up and to keep in order.
    request    uuid        PRIMARY KEY,
    -- SHA-256 of the parsed request body.
    body_hash  bytea       NOT NULL,
    status     smallint    NOT NULL,
    -- Of an accepted order there is neither: the answer is made again from the event. No answer has what stands in notes.
    location   text,
    body       text,
    -- The order that was accepted.
    order_id   uuid,
    created_at timestamptz NOT NULL,
    CHECK ((body IS NULL) = (order_id IS NOT NULL))
);
CREATE INDEX idempotency_keys_age ON idempotency_keys USING brin (created_at);

-- An order; its bulk is its purchase: what was ordered, by whom and at which price.
CREATE TABLE orders (
    key        uuid    PRIMARY KEY,
    bulk       json   NOT NULL,
    user_id    uuid    NOT NULL GENERATED ALWAYS AS ((bulk ->> 'user_id')::uuid) STORED,
    version    integer NOT NULL,
    state      jsonb   NOT NULL,
    status     text    NOT NULL GENERATED ALWAYS AS (state ->> 'status') STORED,
    paid       bigint  NOT NULL GENERATED ALWAYS AS ((state ->> 'paid')::bigint) STORED,
    refunded   bigint  NOT NULL GENERATED ALWAYS AS ((state ->> 'refunded')::bigint) STORED,
    -- Until when it should have come to rest; absent where it rests.
    open_until bigint  GENERATED ALWAYS AS (
        CASE WHEN state ->> 'status' IN ('PENDING', 'REJECTING', 'MODIFYING', 'MODIFICATION_APPLYING',
            'MODIFICATION_REFUSING', 'CANCELLING') THEN (state ->> 'deadline_at')::bigint END) STORED,
    CONSTRAINT orders_add_up CHECK (
        refunded BETWEEN 0 AND paid
        AND status IN ('PENDING', 'REJECTING', 'REJECTED', 'CONFIRMED', 'MODIFYING', 'MODIFICATION_APPLYING',
            'MODIFICATION_REFUSING', 'CANCELLING', 'CANCELLED', 'PARTIALLY_SHIPPED', 'SHIPPED', 'DELIVERED'))
) WITH (fillfactor = 50);
CREATE INDEX orders_user ON orders (user_id, key);
-- The few that are pending or being cancelled are looked for among millions that are not, so lists walk each status by
-- itself. An order is in one of these two; those that do not rest are also looked through for what is overdue.
CREATE INDEX orders_open ON orders (status, key, open_until) WHERE open_until IS NOT NULL;
CREATE INDEX orders_at_rest ON orders (status, key) WHERE open_until IS NULL;

CREATE TABLE shipments (
    key      uuid    PRIMARY KEY,
    bulk     json,
    order_id uuid    NOT NULL REFERENCES orders GENERATED ALWAYS AS ((state ->> 'order_id')::uuid) STORED,
    version  integer NOT NULL,
    state    jsonb   NOT NULL
);
CREATE INDEX shipments_order ON shipments (order_id, key);

CREATE TABLE coupons (
    key      uuid    PRIMARY KEY,
    bulk     json,
    version  integer NOT NULL,
    state    jsonb   NOT NULL,
    quantity integer NOT NULL GENERATED ALWAYS AS ((state ->> 'quantity')::integer) STORED,
    issued   integer NOT NULL GENERATED ALWAYS AS ((state ->> 'issued')::integer) STORED,
    CONSTRAINT coupons_no_more_than_there_are CHECK (issued BETWEEN 0 AND quantity)
) WITH (fillfactor = 50);

-- The coupon that every new user gets. Its dates are over, so nobody can claim it.
INSERT INTO coupons (key, version, state) VALUES ('01930000-0000-7000-8000-000000000001', 1,
    '{"name": "Welcome", "discount": {"type": "PERCENT", "value": 5}, "quantity": 2147483647, "issued": 0,
      "valid_days": 30, "claimable_until": 0, "min_subtotal": 0, "created_at": 0}');

CREATE TABLE coupon_claims (
    key       uuid    PRIMARY KEY,
    bulk      json,
    coupon_id uuid    NOT NULL GENERATED ALWAYS AS ((state ->> 'coupon_id')::uuid) STORED,
    user_id   uuid    NOT NULL GENERATED ALWAYS AS ((state ->> 'user_id')::uuid) STORED,
    version   integer NOT NULL,
    state     jsonb   NOT NULL,
    -- The place among those issued, from 1.
    position  integer GENERATED ALWAYS AS ((state ->> 'position')::integer) STORED,
    status    text    NOT NULL GENERATED ALWAYS AS (state ->> 'state') STORED,
    UNIQUE (coupon_id, user_id),
    UNIQUE (coupon_id, position),
    CONSTRAINT coupon_claims_add_up CHECK (
        status IN ('PENDING', 'ISSUED', 'REJECTED') AND (status = 'ISSUED') = (position IS NOT NULL))
) WITH (fillfactor = 70);

-- What became of the coupon that an order named.
CREATE TABLE coupon_uses (
    key            uuid    PRIMARY KEY,
    bulk           json,
    user_coupon_id uuid    NOT NULL GENERATED ALWAYS AS ((state ->> 'user_coupon_id')::uuid) STORED,
    version        integer NOT NULL,
    state          jsonb   NOT NULL
);

CREATE TABLE user_coupons (
    key        uuid    PRIMARY KEY,
    bulk       json,
    coupon_id  uuid    NOT NULL GENERATED ALWAYS AS ((state ->> 'coupon_id')::uuid) STORED,
    user_id    uuid    NOT NULL GENERATED ALWAYS AS ((state ->> 'user_id')::uuid) STORED,
    claim_id   uuid    NOT NULL UNIQUE GENERATED ALWAYS AS ((state ->> 'claim_id')::uuid) STORED,
    version    integer NOT NULL,
    state      jsonb   NOT NULL,
    -- A coupon is used for one order at most, and an order uses one at most.
    order_id   uuid    UNIQUE GENERATED ALWAYS AS ((state ->> 'order_id')::uuid) STORED,
    status     text    NOT NULL GENERATED ALWAYS AS (state ->> 'state') STORED,
    -- Until when it can be used; absent where it is not there to be used.
    open_until bigint  GENERATED ALWAYS AS (
        CASE WHEN state ->> 'state' = 'ISSUED' THEN (state ->> 'expires_at')::bigint END) STORED,
    CONSTRAINT user_coupons_add_up CHECK (
        status IN ('ISSUED', 'USED', 'EXPIRED', 'REVOKED') AND (status = 'USED') = (order_id IS NOT NULL))
) WITH (fillfactor = 70);
CREATE INDEX user_coupons_user ON user_coupons (user_id, key);
CREATE INDEX user_coupons_open ON user_coupons (open_until) WHERE open_until IS NOT NULL;

-- What is held for an order; its bulk are the lines: {product_id, quantity} each.
CREATE TABLE stock_reservations (
    key     uuid    PRIMARY KEY,
    bulk    json   NOT NULL,
    version integer NOT NULL,
    state   jsonb   NOT NULL
) WITH (fillfactor = 50);

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

CREATE TABLE products (
    key         uuid    PRIMARY KEY,
    bulk        json,
    version     integer NOT NULL,
    state       jsonb   NOT NULL,
    category    text    NOT NULL GENERATED ALWAYS AS (state ->> 'category') STORED,
    price       bigint  NOT NULL CHECK (price >= 0) GENERATED ALWAYS AS ((state ->> 'price')::bigint) STORED,
    withdrawn   boolean NOT NULL GENERATED ALWAYS AS ((state ->> 'withdrawn')::boolean) STORED,
    search_name text    NOT NULL GENERATED ALWAYS AS (search_form(state ->> 'name')) STORED
);
-- Lists of products: their orders, and the search in their names (docs/adr/0007). Not fastupdate: products are changed
-- seldom and looked for often.
CREATE INDEX products_name ON products USING gin (name_grams(search_name)) WITH (fastupdate = off);
CREATE INDEX products_price ON products (price, key);
CREATE INDEX products_category ON products (category, key);
-- The planner knows how rare a part of a name is only from this.
ANALYZE products;

-- Where the units of each product are; the sum of the three is what was ever received.
CREATE TABLE stock (
    key      uuid    PRIMARY KEY,
    bulk     json,
    version  integer NOT NULL,
    state    jsonb   NOT NULL,
    on_hand  bigint  NOT NULL GENERATED ALWAYS AS ((state ->> 'on_hand')::bigint) STORED,
    reserved bigint  NOT NULL GENERATED ALWAYS AS ((state ->> 'reserved')::bigint) STORED,
    deducted bigint  NOT NULL GENERATED ALWAYS AS ((state ->> 'deducted')::bigint) STORED,
    received bigint  NOT NULL GENERATED ALWAYS AS ((state ->> 'received')::bigint) STORED,
    CONSTRAINT stock_adds_up CHECK (
        on_hand >= 0 AND reserved >= 0 AND deducted >= 0 AND on_hand + reserved + deducted = received)
) WITH (fillfactor = 50);

-- What the gateway is to be asked for is found by the orders that do not rest, so no index has to follow each payment.
CREATE TABLE payments (
    key     uuid    PRIMARY KEY,
    bulk    json,
    version integer NOT NULL,
    state   jsonb   NOT NULL
) WITH (fillfactor = 50);

-- Who alone asks the gateway, where that takes long or another process has taken it over: no state, and not in the log.
CREATE TABLE gateway_lease (
    order_id     uuid        PRIMARY KEY,
    -- The ordinal of the payment's event that it follows from: the lease of what was asked before says nothing of what is asked now.
    sequence     integer     NOT NULL,
    holder       uuid        NOT NULL,
    leased_until timestamptz NOT NULL
);

CREATE TABLE balances (
    key       uuid    PRIMARY KEY,
    bulk      json,
    version   integer NOT NULL,
    state     jsonb   NOT NULL,
    available bigint  NOT NULL GENERATED ALWAYS AS ((state ->> 'available')::bigint) STORED,
    held      bigint  NOT NULL GENERATED ALWAYS AS ((state ->> 'held')::bigint) STORED,
    CONSTRAINT balances_not_below_zero CHECK (available >= 0 AND held >= 0)
) WITH (fillfactor = 50);

-- The history of balances, as clients read it: those of their events that move money. It leaves a balance when it is captured;
-- a hold moves none.
CREATE VIEW balance_entries AS
SELECT e.event_id AS entry_id, e.aggregate_id AS user_id, e.sequence,
    CASE e.type WHEN 'balance.charged' THEN 'CHARGED' WHEN 'balance.captured' THEN 'USED' ELSE 'REFUNDED' END AS kind,
    (said.data ->> 'amount')::bigint AS amount,
    (said.data ->> 'available')::bigint + (said.data ->> 'held')::bigint AS balance_after,
    (said.data ->> 'order_id')::uuid AS order_id,
    e.at AS created_at, e.about
FROM event_history e CROSS JOIN LATERAL (
        SELECT CASE e.topic_code WHEN (SELECT code FROM log_word WHERE word = 'balances')
            THEN convert_from(e.data, 'UTF8')::jsonb END AS data OFFSET 0) said
WHERE e.topic = 'balances' AND e.type IN ('balance.charged', 'balance.captured', 'balance.refunded');

-- What was sold, in buckets of 15 minutes UTC by the time when the sale was confirmed. Days of every zone in use begin on
-- such a quarter of an hour. The sales worker adds and subtracts; nobody else writes here.
--
-- Each sale is counted on three levels, since an order with two products of a category is one order of that category.
-- The level ALL has neither category nor product, CATEGORY has no product. They are '' and the nil UUID there, so that
-- they can be of the key. The category is the one at the sale.
--
-- No figure is checked against 0: a sale whose event was put aside as a dead letter may be taken back before it is
-- counted. Rows whose figures have come down to 0 stay.
CREATE TABLE sales (
    level      text        NOT NULL CHECK (level IN ('ALL', 'CATEGORY', 'PRODUCT')),
    bucket     timestamptz NOT NULL,
    category   text        NOT NULL,
    product_id uuid        NOT NULL,
    quantity   bigint      NOT NULL,
    revenue    bigint      NOT NULL,
    orders     bigint      NOT NULL,
    PRIMARY KEY (level, category, product_id, bucket),
    CHECK (bucket = date_bin('15 minutes', bucket, 'epoch')),
    CHECK ((category = '') = (level = 'ALL')),
    CHECK ((product_id = '00000000-0000-0000-0000-000000000000') = (level <> 'PRODUCT'))
) WITH (fillfactor = 70);
-- Rankings look at all products of some days, statistics of a product at its whole history in whichever category.
CREATE INDEX sales_bucket ON sales (bucket) WHERE level = 'PRODUCT';
CREATE INDEX sales_product ON sales (product_id, bucket) WHERE level = 'PRODUCT';

-- Documents are found by their keys and by generated columns. Of the documents themselves the server need know nothing; to sample them
-- took most of an ANALYZE.
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT attrelid::regclass FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
        WHERE attname = 'state' AND atttypid = 'jsonb'::regtype AND c.relkind = 'r' AND c.relnamespace = current_schema::regnamespace
    LOOP
        EXECUTE format('ALTER TABLE %s ALTER state SET STATISTICS 0, ALTER bulk SET STATISTICS 0', name);
    END LOOP;
END $$;
