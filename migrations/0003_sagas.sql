-- Sagas in full: refunds and voids, cancellation, modification, shipments.

ALTER TABLE orders
    DROP CONSTRAINT orders_status_check,
    DROP CONSTRAINT orders_stock_step_check,
    DROP CONSTRAINT orders_payment_step_check,
    DROP CONSTRAINT orders_check,
    DROP CONSTRAINT orders_check1,
    -- What was paid and paid back in the order's life.
    ADD COLUMN paid              bigint  NOT NULL DEFAULT 0,
    ADD COLUMN refunded          bigint  NOT NULL DEFAULT 0,
    -- The ordinal of the last change: 1 is the placing, every modification and a cancellation count on.
    ADD COLUMN round             integer NOT NULL DEFAULT 1,
    -- The modification that is under way, and what became of the last one.
    ADD COLUMN change            jsonb,
    ADD COLUMN last_modification jsonb,
    -- What was shipped of each product: {product_id, quantity} each; and how many shipments are on their way.
    ADD COLUMN shipped           jsonb   NOT NULL DEFAULT '[]',
    ADD COLUMN in_transit        integer NOT NULL DEFAULT 0 CHECK (in_transit >= 0),
    ADD COLUMN confirmed_at      timestamptz;

UPDATE orders
SET paid = total, confirmed_at = CASE WHEN status = 'CONFIRMED' THEN updated_at END
WHERE payment_step = 'COMPLETED';

ALTER TABLE orders
    ADD CONSTRAINT orders_status_check CHECK (status IN (
        'PENDING', 'REJECTING', 'REJECTED', 'CONFIRMED', 'MODIFYING', 'MODIFICATION_APPLYING',
        'MODIFICATION_REFUSING', 'CANCELLING', 'CANCELLED', 'PARTIALLY_SHIPPED', 'SHIPPED', 'DELIVERED')),
    ADD CONSTRAINT orders_stock_step_check CHECK (stock_step IN (
        'ASKED', 'RESERVED', 'DEDUCTED', 'SHORT', 'REFUSED', 'RELEASED')),
    ADD CONSTRAINT orders_payment_step_check CHECK (payment_step IN (
        'NOT_DUE', 'DUE', 'COMPLETED', 'FAILED', 'REFUNDED')),
    ADD CONSTRAINT orders_refunded_at_most_what_was_paid CHECK (refunded BETWEEN 0 AND paid),
    ADD CONSTRAINT orders_sold_is_deducted_and_paid CHECK (
        status NOT IN ('CONFIRMED', 'PARTIALLY_SHIPPED', 'SHIPPED', 'DELIVERED')
        OR (stock_step = 'DEDUCTED' AND payment_step = 'COMPLETED' AND paid - refunded = total
            AND confirmed_at IS NOT NULL)),
    ADD CONSTRAINT orders_not_sold_keeps_nothing CHECK (
        status NOT IN ('REJECTED', 'CANCELLED')
        OR (stock_step IN ('REFUSED', 'RELEASED') AND payment_step IN ('NOT_DUE', 'FAILED', 'REFUNDED')
            AND paid = refunded)),
    ADD CONSTRAINT orders_refused_says_why CHECK (
        (status IN ('REJECTING', 'REJECTED')) = (failure_code IS NOT NULL)),
    ADD CONSTRAINT orders_modifying_says_what CHECK (
        (status IN ('MODIFYING', 'MODIFICATION_APPLYING', 'MODIFICATION_REFUSING')) = (change IS NOT NULL));

ALTER TABLE stock_reservations
    DROP CONSTRAINT stock_reservations_state_check,
    ADD CONSTRAINT stock_reservations_state_check CHECK (
        state IN ('RESERVED', 'REFUSED', 'DEDUCTED', 'SHORT', 'RELEASED')),
    -- The modification that is held for, if there is one: {round, taken, returning, lines}; and the last one answered.
    ADD COLUMN change jsonb,
    ADD COLUMN round  integer NOT NULL DEFAULT 0;

ALTER TABLE payments
    DROP CONSTRAINT payments_state_check,
    ADD CONSTRAINT payments_state_check CHECK (state IN ('REQUESTED', 'VOIDING', 'COMPLETED', 'FAILED')),
    -- What was paid back of the newest charge.
    ADD COLUMN refunded     bigint  NOT NULL DEFAULT 0 CHECK (refunded BETWEEN 0 AND amount),
    -- The charges before the newest: {number, charge_id, amount, refunded, state} each, oldest first.
    ADD COLUMN earlier      jsonb   NOT NULL DEFAULT '[]',
    -- The refund that is under way: {round, parts}; and the last round that was paid back.
    ADD COLUMN refund       jsonb,
    ADD COLUMN refund_round integer NOT NULL DEFAULT 0;

DROP INDEX payments_requested;
-- Payments for which the gateway has something to do.
CREATE INDEX payments_open ON payments (leased_until)
    WHERE state IN ('REQUESTED', 'VOIDING') OR refund IS NOT NULL;

CREATE TABLE shipments (
    shipment_id     uuid        PRIMARY KEY,
    order_id        uuid        NOT NULL REFERENCES orders,
    -- {product_id, quantity} each.
    lines           jsonb       NOT NULL,
    tracking_number text,
    created_at      timestamptz NOT NULL,
    delivered_at    timestamptz
);
CREATE INDEX shipments_order ON shipments (order_id, shipment_id);
