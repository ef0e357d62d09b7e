-- Coupons: claimed first come, first served; used once, inside the saga of an order.

CREATE TABLE coupons (
    coupon_id       uuid        PRIMARY KEY,
    name            text        NOT NULL,
    -- {type: PERCENT|FIXED, value}
    discount        jsonb       NOT NULL,
    quantity        integer     NOT NULL CHECK (quantity > 0),
    issued          integer     NOT NULL DEFAULT 0 CHECK (issued BETWEEN 0 AND quantity),
    valid_days      integer     NOT NULL CHECK (valid_days > 0),
    claimable_from  timestamptz,
    claimable_until timestamptz,
    min_subtotal    bigint      NOT NULL CHECK (min_subtotal >= 0),
    created_at      timestamptz NOT NULL
) WITH (fillfactor = 50);

-- The coupon that every new user gets. Its dates are over, so nobody can claim it.
INSERT INTO coupons (coupon_id, name, discount, quantity, valid_days, claimable_until, min_subtotal, created_at)
VALUES ('01930000-0000-7000-8000-000000000001', 'Welcome', '{"type": "PERCENT", "value": 5}', 2147483647, 30,
    '1970-01-01T00:00:00Z', 0, '1970-01-01T00:00:00Z');

CREATE TABLE coupon_claims (
    claim_id       uuid        PRIMARY KEY,
    coupon_id      uuid        NOT NULL REFERENCES coupons,
    user_id        uuid        NOT NULL REFERENCES users,
    state          text        NOT NULL CHECK (state IN ('PENDING', 'ISSUED', 'REJECTED')),
    failure_code   text,
    failure_detail text,
    -- The place among those issued, from 1.
    position       integer     CHECK (position > 0),
    requested_at   timestamptz NOT NULL,
    sequence       integer     NOT NULL,
    UNIQUE (coupon_id, user_id),
    UNIQUE (coupon_id, position),
    CHECK ((state = 'ISSUED') = (position IS NOT NULL)),
    CHECK ((state = 'REJECTED') = (failure_code IS NOT NULL))
) WITH (fillfactor = 70);

CREATE TABLE user_coupons (
    user_coupon_id uuid        PRIMARY KEY,
    coupon_id      uuid        NOT NULL REFERENCES coupons,
    claim_id       uuid        NOT NULL UNIQUE REFERENCES coupon_claims,
    user_id        uuid        NOT NULL REFERENCES users,
    discount       jsonb       NOT NULL,
    min_subtotal   bigint      NOT NULL,
    state          text        NOT NULL CHECK (state IN ('ISSUED', 'USED', 'EXPIRED', 'REVOKED')),
    issued_at      timestamptz NOT NULL,
    expires_at     timestamptz NOT NULL,
    used_at        timestamptz,
    -- A coupon is used for one order at most, and an order uses one at most.
    order_id       uuid        UNIQUE,
    sequence       integer     NOT NULL,
    CHECK ((state = 'USED') = (order_id IS NOT NULL)),
    CHECK ((state = 'USED') = (used_at IS NOT NULL))
) WITH (fillfactor = 70);
CREATE INDEX user_coupons_user ON user_coupons (user_id, user_coupon_id);
CREATE INDEX user_coupons_expiry ON user_coupons (expires_at) WHERE state = 'ISSUED';

-- What became of the coupon that an order named.
CREATE TABLE coupon_uses (
    order_id       uuid    PRIMARY KEY,
    user_coupon_id uuid    NOT NULL,
    state          text    NOT NULL CHECK (state IN ('APPLIED', 'REFUSED', 'RETURNED')),
    sequence       integer NOT NULL
);

ALTER TABLE orders
    -- The coupon that the order names, how far it is, and what it does: {user_coupon_id, discount, min_subtotal}.
    ADD COLUMN coupon_step text NOT NULL DEFAULT 'NOT_USED'
        CHECK (coupon_step IN ('NOT_USED', 'ASKED', 'APPLIED', 'REFUSED', 'RETURNED')),
    ADD COLUMN coupon      jsonb,
    ADD CONSTRAINT orders_coupon_is_settled_with_the_order CHECK (
        status NOT IN ('CONFIRMED', 'PARTIALLY_SHIPPED', 'SHIPPED', 'DELIVERED', 'REJECTED', 'CANCELLED')
        OR coupon_step <> 'ASKED'
        AND (coupon_step <> 'APPLIED' OR status NOT IN ('REJECTED', 'CANCELLED')));
