-- The tables of the pipeline: the event log, who has published and consumed how much of it, dead letters.

-- The append-only log of every change, which is the outbox as well.
--
-- The order of the first two columns matters: defaults are computed in column order, so a writer has a
-- transaction id before it draws a position. The relay's cut (docs/adr/0002) rests on that.
CREATE TABLE event_log (
    xid             xid8        NOT NULL DEFAULT pg_current_xact_id(),
    position        bigint      GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY,
    event_id        uuid        NOT NULL,
    topic           text        NOT NULL,
    partition       smallint    NOT NULL CHECK (partition >= 0),
    key             uuid        NOT NULL,
    -- The Kafka key where it is not the text of `key`: that of a record that was not ours.
    record_key      bytea,
    aggregate_id    uuid        NOT NULL,
    sequence        integer     NOT NULL CHECK (sequence > 0),
    type            text        NOT NULL,
    version         smallint    NOT NULL,
    correlation_id  uuid,
    -- The event that caused this one, and where the worker that decided met it in Kafka.
    cause_id        uuid,
    cause_topic     text,
    cause_partition smallint,
    cause_offset    bigint,
    actor           text        NOT NULL,
    traceparent     text        NOT NULL,
    at              timestamptz NOT NULL,
    data            bytea       NOT NULL,
    -- Further Kafka headers, for dead letters: an array of {name, value}.
    headers         jsonb,
    UNIQUE (aggregate_id, topic, sequence)
);
CREATE INDEX event_log_correlation ON event_log (correlation_id, position) WHERE correlation_id IS NOT NULL;

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END $$;
CREATE TRIGGER event_log_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON event_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- One row: who publishes, and how far it is.
CREATE TABLE relay_cursor (
    only_row          boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    era               integer     NOT NULL DEFAULT 1 CHECK (era > 0),
    -- Of the database cluster that the era began in.
    system_identifier bigint      NOT NULL,
    -- How many partitions every topic has.
    partitions        smallint    NOT NULL CHECK (partitions > 0),
    -- Counts leaders; a former one can't move the cursor.
    epoch             bigint      NOT NULL DEFAULT 0,
    leader            text,
    lease_until       timestamptz NOT NULL DEFAULT '-infinity',
    -- Everything up to here was acknowledged by Kafka.
    position          bigint      NOT NULL DEFAULT 0,
    -- The last position published to each partition: {topic: [position of partition 0, ...]}.
    tails             jsonb       NOT NULL DEFAULT '{}',
    -- A consumer that misses records asks for everything above this position again.
    repeat_after      bigint
);

-- How far each group is in each partition.
CREATE TABLE consumer_offset (
    group_name     text        NOT NULL,
    topic          text        NOT NULL,
    partition      smallint    NOT NULL,
    -- Counts owners; a former one can't move the offset.
    epoch          bigint      NOT NULL DEFAULT 0,
    next_offset    bigint      NOT NULL DEFAULT 0 CHECK (next_offset >= 0),
    -- The label of the last record applied.
    label_era      integer     NOT NULL DEFAULT 0,
    label_position bigint      NOT NULL DEFAULT 0,
    -- The label of the record before next_offset: lower than the above where that was a repeat, null where it
    -- was not the relay's.
    tip_era        integer,
    tip_position   bigint,
    updated_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (group_name, topic, partition)
) WITH (fillfactor = 50);

-- Messages that a group could not apply.
CREATE TABLE dead_letter (
    dead_letter_id  uuid        PRIMARY KEY,
    group_name      text        NOT NULL,
    topic           text        NOT NULL,
    partition       smallint    NOT NULL,
    record_offset   bigint      NOT NULL,
    record_key      bytea,
    headers         jsonb       NOT NULL,
    payload         bytea,
    event_type      text,
    code            text        NOT NULL,
    error           text        NOT NULL,
    attempts        integer     NOT NULL CHECK (attempts > 0),
    first_failed_at timestamptz NOT NULL,
    last_failed_at  timestamptz NOT NULL,
    state           text        NOT NULL DEFAULT 'PARKED'
        CHECK (state IN ('PARKED', 'WAITING', 'REPLAYED', 'RESOLVED', 'DISCARDED'))
);
CREATE INDEX dead_letter_group ON dead_letter (group_name, topic, dead_letter_id);

-- Processes that are at work, so that readiness can say what does not answer.
CREATE TABLE heartbeat (
    instance text        NOT NULL,
    role     text        NOT NULL,
    at       timestamptz NOT NULL,
    PRIMARY KEY (role, instance)
) WITH (fillfactor = 50);
