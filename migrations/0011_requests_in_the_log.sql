-- Which HTTP request wrote a row of the log: its id, as in `X-Request-Id`, and its idempotency key where it had one. They
-- stand in the row itself, so that accepting an order is still one row. Rows that follow from other events have
-- neither, nor have those that were written before.
ALTER TABLE event_log
    ADD COLUMN request_id      uuid,
    ADD COLUMN idempotency_key text;
