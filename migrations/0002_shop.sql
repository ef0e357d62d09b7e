-- The state tables of the shop. Each is written by its capability's worker and by the API, never by
-- another worker.

CREATE TABLE users (
    user_id    uuid        PRIMARY KEY,
    name       text,
    email      text        UNIQUE,
    created_at timestamptz NOT NULL,
    erased_at  timestamptz,
    CHECK (erased_at IS NOT NULL OR (name IS NOT NULL AND email IS NOT NULL))
);

CREATE TABLE api_keys (
    -- SHA-256 of the key; a random key of 256 bits needs no slow hash.
    key_hash   bytea       PRIMARY KEY CHECK (octet_length(key_hash) = 32),
    user_id    uuid        REFERENCES users,
    scope      text        NOT NULL CHECK (scope IN ('customer', 'admin')),
    created_at timestamptz NOT NULL,
    revoked_at timestamptz,
    CHECK ((scope = 'customer') = (user_id IS NOT NULL))
);
CREATE INDEX api_keys_user ON api_keys (user_id);

-- The first answers to requests that may be repeated.
CREATE TABLE idempotency_keys (
    caller     text        NOT NULL,
    route      text        NOT NULL,
    key        text        NOT NULL,
    -- SHA-256 of the parsed request body.
    body_hash  bytea       NOT NULL,
    status     smallint    NOT NULL,
    location   text,
    body       text        NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (caller, route, key)
);
CREATE INDEX idempotency_keys_age ON idempotency_keys USING brin (created_at);

CREATE TABLE balances (
    user_id    uuid        PRIMARY KEY REFERENCES users,
    available  bigint      NOT NULL DEFAULT 0 CHECK (available >= 0),
    held       bigint      NOT NULL DEFAULT 0 CHECK (held >= 0),
    sequence   integer     NOT NULL,
    updated_at timestamptz NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE balance_entries (
    entry_id      uuid        PRIMARY KEY,
    user_id       uuid        NOT NULL REFERENCES balances,
    -- The ordinal of the change in the balance's history.
    sequence      integer     NOT NULL,
    kind          text        NOT NULL CHECK (kind IN ('CHARGED', 'USED', 'REFUNDED')),
    amount        bigint      NOT NULL CHECK (amount > 0),
    balance_after bigint      NOT NULL CHECK (balance_after >= 0),
    order_id      uuid        CHECK (kind = 'CHARGED' OR order_id IS NOT NULL),
    created_at    timestamptz NOT NULL,
    UNIQUE (user_id, sequence)
);

CREATE TABLE products (
    product_id  uuid        PRIMARY KEY,
    name        text        NOT NULL,
    description text        NOT NULL,
    category    text        NOT NULL,
    price       bigint      NOT NULL CHECK (price >= 0),
    withdrawn   boolean     NOT NULL DEFAULT false,
    sequence    integer     NOT NULL,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL
);

-- Where the units of each product are; the sum of the three is what was ever received.
CREATE TABLE stock (
    product_id uuid        PRIMARY KEY REFERENCES products,
    on_hand    bigint      NOT NULL DEFAULT 0 CHECK (on_hand >= 0),
    reserved   bigint      NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    deducted   bigint      NOT NULL DEFAULT 0 CHECK (deducted >= 0),
    received   bigint      NOT NULL DEFAULT 0,
    -- The ordinal of the last adjustment in the product's history of stock.
    sequence   integer     NOT NULL,
    updated_at timestamptz NOT NULL,
    CHECK (on_hand + reserved + deducted = received)
) WITH (fillfactor = 50);

-- What is held for an order, all its lines in one row: {product_id, quantity} each.
CREATE TABLE stock_reservations (
    order_id uuid    PRIMARY KEY,
    state    text    NOT NULL CHECK (state IN ('RESERVED', 'REFUSED', 'DEDUCTED', 'RELEASED')),
    lines    jsonb   NOT NULL,
    sequence integer NOT NULL
) WITH (fillfactor = 80);

-- An order with all its lines: {product_id, name, category, unit_price, quantity} each.
CREATE TABLE orders (
    order_id       uuid        PRIMARY KEY,
    user_id        uuid        NOT NULL REFERENCES users,
    status         text        NOT NULL CHECK (status IN ('PENDING', 'REJECTING', 'REJECTED', 'CONFIRMED')),
    lines          jsonb       NOT NULL,
    subtotal       bigint      NOT NULL CHECK (subtotal >= 0),
    discounts      jsonb       NOT NULL,
    total          bigint      NOT NULL CHECK (total >= 0),
    payment_method text        NOT NULL CHECK (payment_method IN ('BALANCE', 'CARD', 'BANK_TRANSFER')),
    stock_step     text        NOT NULL CHECK (stock_step IN ('ASKED', 'RESERVED', 'DEDUCTED', 'REFUSED', 'RELEASED')),
    payment_step   text        NOT NULL CHECK (payment_step IN ('NOT_DUE', 'DUE', 'COMPLETED', 'FAILED')),
    failure_code   text,
    failure_detail text,
    version        integer     NOT NULL,
    sequence       integer     NOT NULL,
    deadline_at    timestamptz NOT NULL,
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    CHECK (status <> 'CONFIRMED' OR (stock_step = 'DEDUCTED' AND payment_step = 'COMPLETED')),
    CHECK ((status IN ('REJECTING', 'REJECTED')) = (failure_code IS NOT NULL))
) WITH (fillfactor = 60);
CREATE INDEX orders_user ON orders (user_id, order_id);

-- The newest charge of each order.
CREATE TABLE payments (
    order_id         uuid        PRIMARY KEY,
    user_id          uuid        NOT NULL,
    charge_id        uuid        NOT NULL UNIQUE,
    charge_number    integer     NOT NULL CHECK (charge_number > 0),
    amount           bigint      NOT NULL CHECK (amount >= 0),
    method           text        NOT NULL CHECK (method IN ('BALANCE', 'CARD', 'BANK_TRANSFER')),
    state            text        NOT NULL CHECK (state IN ('REQUESTED', 'COMPLETED', 'FAILED')),
    sequence         integer     NOT NULL,
    -- The event that asked for the charge, and its trace: the cause of what the gateway answers.
    cause_id         uuid        NOT NULL,
    traceparent      text        NOT NULL,
    -- Until when a process is busy with the charge; free to others afterwards.
    leased_until     timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX payments_requested ON payments (leased_until) WHERE state = 'REQUESTED';
