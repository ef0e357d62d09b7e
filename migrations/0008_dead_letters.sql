-- Dead letters that can be worked: keys that wait behind them, replays, edits, discards, and the brake on a flood.

ALTER TABLE dead_letter
    DROP CONSTRAINT dead_letter_attempts_check,
    DROP CONSTRAINT dead_letter_state_check,
    -- The order in which messages were put aside; within a key it is the order of the key.
    ADD COLUMN ordinal          bigint GENERATED ALWAYS AS IDENTITY (CACHE 1),
    -- The event that could not be applied, as its headers say.
    ADD COLUMN event_id         uuid,
    ADD COLUMN correlation_id   uuid,
    -- The payload as it came, where somebody has edited it since.
    ADD COLUMN original_payload bytea,
    ADD COLUMN edited           boolean NOT NULL DEFAULT false,
    -- What became of it: when, by which replay (by none where it was released), and whether it changed anything.
    ADD COLUMN resolved_at      timestamptz,
    ADD COLUMN resolved_by      uuid,
    ADD COLUMN had_effect       boolean,
    -- A message that only waits has not failed.
    ALTER COLUMN code DROP NOT NULL,
    ALTER COLUMN error DROP NOT NULL,
    ALTER COLUMN first_failed_at DROP NOT NULL,
    ALTER COLUMN last_failed_at DROP NOT NULL,
    ADD CONSTRAINT dead_letter_state_check CHECK (
        state IN ('PARKED', 'WAITING', 'REPLAYED', 'RESOLVED', 'DISCARDED')),
    ADD CONSTRAINT dead_letter_failed_says_how CHECK (
        (attempts > 0) = (code IS NOT NULL) AND (attempts > 0) = (error IS NOT NULL)
        AND (attempts > 0) = (first_failed_at IS NOT NULL) AND (attempts > 0) = (last_failed_at IS NOT NULL)),
    ADD CONSTRAINT dead_letter_parked_has_failed CHECK (state NOT IN ('PARKED', 'REPLAYED') OR attempts > 0),
    ADD CONSTRAINT dead_letter_resolved_says_what CHECK (
        (state = 'RESOLVED') = (resolved_at IS NOT NULL) AND (state = 'RESOLVED') = (had_effect IS NOT NULL)),
    ADD CONSTRAINT dead_letter_edited_keeps_the_original CHECK (edited OR original_payload IS NULL);

-- Of before: records of ours did not hold their keys back, and what came behind them was applied.
UPDATE dead_letter d SET event_id = e.cause_id, correlation_id = e.correlation_id
FROM event_log e WHERE e.aggregate_id = d.dead_letter_id AND e.topic LIKE '%.dlt';

CREATE UNIQUE INDEX dead_letter_ordinal ON dead_letter (ordinal);
-- What waits behind a letter, in order.
CREATE INDEX dead_letter_key ON dead_letter (group_name, topic, record_key, ordinal)
    WHERE state IN ('PARKED', 'WAITING', 'REPLAYED');
CREATE INDEX dead_letter_event ON dead_letter (event_id) WHERE event_id IS NOT NULL;
CREATE INDEX dead_letter_order ON dead_letter (correlation_id) WHERE correlation_id IS NOT NULL;
CREATE INDEX dead_letter_state ON dead_letter (state, dead_letter_id);

-- The keys of which a group applies nothing: later messages of them wait. Whoever decides about such a key locks its row.
CREATE TABLE parked_key (
    group_name     text    NOT NULL,
    topic          text    NOT NULL,
    record_key     bytea   NOT NULL,
    -- The letter that the others wait behind.
    dead_letter_id uuid    NOT NULL REFERENCES dead_letter,
    -- The letter is done with, and what waits is being applied.
    releasing      boolean NOT NULL DEFAULT false,
    PRIMARY KEY (group_name, topic, record_key)
);
CREATE INDEX parked_key_letter ON parked_key (dead_letter_id);
CREATE INDEX parked_key_releasing ON parked_key (group_name, topic, record_key) WHERE releasing;

-- Replays of dead letters. What is selected is fixed when the replay is asked for.
CREATE TABLE dead_letter_replay (
    replay_id       uuid        PRIMARY KEY,
    dry_run         boolean     NOT NULL,
    rate_per_second integer     CHECK (rate_per_second > 0),
    selected        integer     NOT NULL CHECK (selected >= 0),
    requested_by    text        NOT NULL,
    requested_at    timestamptz NOT NULL,
    -- When the next letter may be taken, where there is a rate.
    next_at         timestamptz NOT NULL
);
CREATE TABLE dead_letter_replay_item (
    replay_id      uuid        NOT NULL REFERENCES dead_letter_replay,
    ordinal        integer     NOT NULL,
    dead_letter_id uuid        NOT NULL REFERENCES dead_letter,
    group_name     text        NOT NULL,
    verdict        text        CHECK (verdict IN ('APPLIED', 'ALREADY_APPLIED', 'FAILED_AGAIN', 'WAITING')),
    detail         text,
    decided_at     timestamptz,
    PRIMARY KEY (replay_id, ordinal),
    UNIQUE (replay_id, dead_letter_id),
    CHECK ((verdict IS NULL) = (decided_at IS NULL))
);
CREATE INDEX dead_letter_replay_item_letter ON dead_letter_replay_item (dead_letter_id);
CREATE INDEX dead_letter_replay_item_open ON dead_letter_replay_item (group_name, replay_id, ordinal)
    WHERE verdict IS NULL;

-- What people have done to dead letters.
CREATE TABLE dead_letter_audit (
    audit_id       bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at             timestamptz NOT NULL,
    actor          text        NOT NULL,
    action         text        NOT NULL CHECK (action IN ('EDITED', 'DISCARDED', 'REPLAY_REQUESTED', 'RESUMED')),
    dead_letter_id uuid        REFERENCES dead_letter,
    replay_id      uuid        REFERENCES dead_letter_replay,
    group_name     text,
    detail         jsonb       NOT NULL
);
CREATE INDEX dead_letter_audit_letter ON dead_letter_audit (dead_letter_id) WHERE dead_letter_id IS NOT NULL;
CREATE INDEX dead_letter_audit_replay ON dead_letter_audit (replay_id) WHERE replay_id IS NOT NULL;
CREATE TRIGGER dead_letter_audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON dead_letter_audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Groups that have stopped because too much of what they read can't be applied.
CREATE TABLE halted_group (
    group_name      text        PRIMARY KEY,
    halted_at       timestamptz NOT NULL,
    reason          text        NOT NULL,
    resumed_at      timestamptz,
    -- Failures until then don't halt the group again: somebody has looked at them.
    unchecked_until timestamptz
);
