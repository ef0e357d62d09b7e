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
