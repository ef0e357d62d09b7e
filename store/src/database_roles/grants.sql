-- Who may do what in the database of a shop. What is not said here nobody may but the owner of the tables: nobody truncates, and nobody changes
-- what the tables are. To be run as the owner, in one transaction; services go on meanwhile.
--
-- What is in braces stands for the names of roles: `all`; `services`, which are the API, the relay and the workers; `workers`; `consumers`, which are
-- the workers that read topics. Tables of state are not named here but where somebody else than their own worker writes or reads them: their worker
-- may write them, API and operators may read them. That is added from the list of capabilities (database_roles.rs).
--
-- To lock rows takes the right to change some column; LOCK TABLE takes it of the whole table.

-- Two who grant at once would get an error. "roles" as a number.
DO $$
BEGIN
    PERFORM pg_advisory_xact_lock(491495646579);
END $$;

-- What is not said any more is taken away, also from everybody, and from the roles of workers that there are no more.
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC, {all};
REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM PUBLIC, {all};
DO $$
DECLARE
    former name;
BEGIN
    FOR former IN
        SELECT rolname FROM pg_roles
        WHERE rolname LIKE 'ordermill\_worker\_%' AND rolname::text <> ALL (string_to_array('{all}', ', '))
    LOOP
        EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA public FROM %I', former);
        EXECUTE format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM %I', former);
    END LOOP;
END $$;

-- Nobody makes anything, not even for the time of a session.
GRANT USAGE ON SCHEMA public TO {all};
REVOKE CREATE ON SCHEMA public FROM PUBLIC, {all};
DO $$
BEGIN
    EXECUTE format('REVOKE CREATE, TEMPORARY ON DATABASE %I FROM PUBLIC, {all}', current_database());
END $$;
-- Whoever owns neither the schema nor the database is only warned that this was not done.
DO $$
DECLARE
    holder name;
BEGIN
    FOREACH holder IN ARRAY string_to_array('{all}', ', ') LOOP
        IF has_schema_privilege(holder, 'public', 'CREATE') OR NOT has_schema_privilege(holder, 'public', 'USAGE')
            OR has_database_privilege(holder, current_database(), 'CREATE, TEMPORARY')
        THEN
            RAISE insufficient_privilege USING MESSAGE = format(
                '%s must have USAGE on schema public and may make nothing: have the owner of the database run this, or '
                    || 'GRANT USAGE ON SCHEMA public TO %1$I; REVOKE CREATE ON SCHEMA public FROM PUBLIC, %1$I; '
                    || 'REVOKE CREATE, TEMPORARY ON DATABASE %2$I FROM PUBLIC, %1$I',
                holder, current_database());
        END IF;
    END LOOP;
END $$;

-- Everybody sees how far the relay is, which wire key signs, and the log.
GRANT SELECT ON relay_cursor, wire_key, log_word, log_segment, event_log, event_history TO {all};
GRANT SELECT ON SEQUENCE log_segment_number_seq TO ordermill_api, ordermill_relay, ordermill_operator;

-- The log is added to and never changed. Its transaction ids and numbers are drawn, never given: the relay's cut rests on that (docs/adr/0002).
GRANT INSERT (word) ON log_word TO {services};
GRANT INSERT (at, events, about, event_id, aggregate_id, sequence, topic, type, version, partition, key, correlation_id, cause_id, actor,
    actor_id, request_id, trace, data, record_key, headers) ON log_segment TO ordermill_api, {workers};

-- Signs of life.
GRANT SELECT ON heartbeat TO ordermill_api, ordermill_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON heartbeat TO ordermill_relay, {workers};

-- The relay leads and moves its cursor. It does not begin an era.
GRANT UPDATE (epoch, leader, lease_until, led_at, position, tails, published_after, repeat_after, repeat_topics) ON relay_cursor
    TO ordermill_relay;
GRANT SELECT, INSERT ON relay_checkpoint TO ordermill_relay;
GRANT SELECT, INSERT, UPDATE ON log_place TO ordermill_relay;
GRANT UPDATE (signed_after) ON wire_key TO ordermill_relay;

-- Consumers move their offsets, ask the relay for what they miss, put messages aside and apply them later. What a message was stays as
-- it came.
GRANT SELECT, INSERT, UPDATE ON consumer_offset TO {consumers};
GRANT UPDATE (repeat_after, repeat_topics) ON relay_cursor TO {consumers};
GRANT SELECT, INSERT, UPDATE (state, code, error, attempts, first_failed_at, last_failed_at, resolved_at, resolved_by, had_effect)
    ON dead_letter TO {consumers};
GRANT SELECT, INSERT, UPDATE, DELETE ON parked_key TO {consumers};
GRANT SELECT, INSERT, UPDATE ON halted_group TO {consumers};
GRANT SELECT, UPDATE (next_at) ON dead_letter_replay TO {consumers};
GRANT SELECT, UPDATE (verdict, detail, decided_at) ON dead_letter_replay_item TO {consumers};

-- Whoever works dead letters, over HTTP or by the command. What was done is written down and stays, and so does what a message was: a trigger
-- sees to it.
GRANT SELECT, UPDATE (state, payload, original_payload, edited) ON dead_letter TO ordermill_api, ordermill_operator;
GRANT SELECT, UPDATE (releasing), DELETE ON parked_key TO ordermill_api, ordermill_operator;
GRANT SELECT, UPDATE (resumed_at, unchecked_until) ON halted_group TO ordermill_api, ordermill_operator;
GRANT SELECT, INSERT ON dead_letter_replay, dead_letter_replay_item, dead_letter_audit TO ordermill_api, ordermill_operator;

-- What API and operators see besides, for timelines, readiness and verification.
GRANT SELECT ON consumer_offset, log_place, balance_entries, sales TO ordermill_api, ordermill_operator;

-- The API signs up, accepts, and does what clients ask for. It locks the table of keys at its start.
GRANT SELECT, INSERT, UPDATE (name, email, erased_at) ON users TO ordermill_api;
GRANT SELECT, INSERT, DELETE ON notes TO ordermill_api;
GRANT SELECT, INSERT, UPDATE ON api_keys TO ordermill_api;
GRANT SELECT, INSERT, DELETE ON idempotency_keys TO ordermill_api;
GRANT INSERT, UPDATE ON orders, shipments, products, stock, balances TO ordermill_api;
GRANT INSERT ON coupons, coupon_claims TO ordermill_api;
GRANT UPDATE ON user_coupons TO ordermill_api;

-- Workers, besides their tables of state.
GRANT SELECT, INSERT, UPDATE, DELETE ON gateway_lease TO ordermill_worker_payments;
GRANT SELECT (key, open_until) ON orders TO ordermill_worker_payments;
GRANT SELECT, INSERT, UPDATE ON sales TO ordermill_worker_sales;
GRANT SELECT, UPDATE ON orders, user_coupons TO ordermill_worker_timers;
GRANT SELECT, INSERT, UPDATE ON coupon_uses TO ordermill_worker_timers;

-- Operators have the relay publish again, work keys, and put sums of sales in place of the live ones. Of users they see the ids alone, and what
-- was said of their orders, as timelines tell it. They change neither when a user has signed up nor when an offset was moved: they lock such rows.
GRANT SELECT ON notes TO ordermill_operator;
GRANT UPDATE (repeat_after, repeat_topics) ON relay_cursor TO ordermill_operator;
GRANT INSERT, UPDATE ON wire_key TO ordermill_operator;
GRANT SELECT, INSERT, UPDATE (replaced_until, revoked_at) ON api_keys TO ordermill_operator;
GRANT SELECT (user_id, erased_at), UPDATE (created_at) ON users TO ordermill_operator;
GRANT INSERT, UPDATE, DELETE ON sales TO ordermill_operator;
GRANT UPDATE (updated_at) ON consumer_offset TO ordermill_operator;

-- The one place where operators make tables: the shadow of `ordermill replay`.
CREATE SCHEMA IF NOT EXISTS replay;
ALTER SCHEMA replay OWNER TO ordermill_operator;
