-- The tables of the pipeline: the event log, who has published and consumed how much of it, dead letters.

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END $$;

-- The words of the log: topics, types of events, actors. Rows of the log have their codes.
CREATE TABLE log_word (
    code smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    word text     NOT NULL UNIQUE
);

-- The append-only log of every change, which is the outbox as well. Read it through the view event_log.
--
-- The order of the first two columns matters: defaults are computed in column order, so a writer has a
-- transaction id before it draws a position. The relay's cut (docs/adr/0002) rests on that.
CREATE TABLE log_entry (
    xid             xid8        NOT NULL DEFAULT pg_current_xact_id(),
    position        bigint      GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY,
    at              timestamptz NOT NULL,
    event_id        uuid        NOT NULL,
    aggregate_id    uuid        NOT NULL,
    sequence        integer     NOT NULL CHECK (sequence > 0),
    topic           smallint    NOT NULL,
    type            smallint    NOT NULL,
    version         smallint    NOT NULL,
    partition       smallint    NOT NULL,
    -- Where it is not the aggregate's id.
    key             uuid,
    correlation_id  uuid,
    -- The event that caused this one, and where the worker that decided met it in Kafka.
    cause_id        uuid,
    cause_topic     smallint,
    cause_partition smallint,
    cause_offset    bigint,
    actor           smallint    NOT NULL,
    -- Of a user, who.
    actor_id        uuid,
    -- Which HTTP request wrote it: its id, as in `X-Request-Id`, and its idempotency key where it had one.
    request_id      uuid,
    idempotency_key text,
    -- The span that it happened in: trace id, span id and flags of a W3C traceparent.
    trace           bytea       NOT NULL,
    data            bytea       NOT NULL,
    -- The Kafka key where it is not the text of the key: that of a record that was not ours.
    record_key      bytea,
    -- Further Kafka headers, for dead letters: an array of {name, value}.
    headers         jsonb,
    UNIQUE (aggregate_id, topic, sequence)
);
-- What belongs to an order without being its own; that is found by the order's id.
CREATE INDEX log_entry_correlation ON log_entry (correlation_id, position) WHERE correlation_id <> aggregate_id;

CREATE TRIGGER log_entry_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON log_entry
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The log in words.
CREATE VIEW event_log AS
SELECT e.position, e.event_id, topic.word AS topic, e.partition, coalesce(e.key, e.aggregate_id) AS key, e.record_key,
    e.aggregate_id, e.sequence, type.word AS type, e.version, e.correlation_id, e.cause_id,
    met.word AS cause_topic, e.cause_partition, e.cause_offset,
    CASE WHEN e.actor_id IS NULL THEN actor.word ELSE actor.word || ':' || e.actor_id END AS actor,
    e.request_id, e.idempotency_key,
    '00-' || encode(substr(e.trace, 1, 16), 'hex') || '-' || encode(substr(e.trace, 17, 8), 'hex') || '-'
        || encode(substr(e.trace, 25, 1), 'hex') AS traceparent,
    e.at, e.data, e.headers
FROM log_entry e
    JOIN log_word topic ON topic.code = e.topic
    JOIN log_word type ON type.code = e.type
    JOIN log_word actor ON actor.code = e.actor
    LEFT JOIN log_word met ON met.code = e.cause_topic;

-- The highest position that was ever drawn; 0 where none was.
--
-- Not by reading the sequence like a table: while it writes ahead to the WAL, at every 32nd position, PostgreSQL shows
-- there for a moment a value of up to 32 positions that nobody has drawn yet. A relay that believed it would cut the log
-- above positions still to be drawn, and never publish their rows. The function waits for the page's lock instead.
CREATE FUNCTION event_log_end() RETURNS bigint LANGUAGE sql
    AS $$ SELECT coalesce(pg_sequence_last_value('log_entry_position_seq'), 0) $$;

-- One row: who publishes, and how far it is.
CREATE TABLE relay_cursor (
    only_row          boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    era               integer     NOT NULL DEFAULT 1 CHECK (era > 0),
    -- Where the log ended when the era began. Labels of earlier eras above it name events that this log does not have.
    era_after         bigint      NOT NULL DEFAULT 0,
    -- Nothing up to here has been published in this era: 0 in the first one, since a log begins empty.
    published_after   bigint      NOT NULL DEFAULT 0,
    -- The era has begun here, but its topics are not known to be fresh yet. Nothing is published meanwhile.
    adopting          boolean     NOT NULL DEFAULT false,
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
    repeat_after      bigint,
    -- Of which topics everything above repeat_after is asked for; null for all of them.
    repeat_topics     text[]
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

-- Messages that a group could not apply, or that wait behind one.
CREATE TABLE dead_letter (
    dead_letter_id     uuid        PRIMARY KEY,
    -- The order in which messages were put aside; within a key it is the order of the key.
    ordinal            bigint      GENERATED ALWAYS AS IDENTITY (CACHE 1),
    group_name         text        NOT NULL,
    topic              text        NOT NULL,
    partition          smallint    NOT NULL,
    record_offset      bigint      NOT NULL,
    record_key         bytea,
    -- The Kafka key of a message that is not ours: nothing waits by it, and it may be longer than the index of the keys
    -- by which messages wait can hold.
    foreign_record_key bytea,
    headers            jsonb       NOT NULL,
    payload            bytea,
    -- The payload as it came, where somebody has edited it since.
    original_payload   bytea,
    edited             boolean     NOT NULL DEFAULT false,
    -- The event that could not be applied, as its headers say.
    event_type         text,
    event_id           uuid,
    correlation_id     uuid,
    -- A message that only waits has not failed.
    code               text,
    error              text,
    attempts           integer     NOT NULL,
    first_failed_at    timestamptz,
    last_failed_at     timestamptz,
    state              text        NOT NULL DEFAULT 'PARKED'
        CHECK (state IN ('PARKED', 'WAITING', 'REPLAYED', 'RESOLVED', 'DISCARDED')),
    -- What became of it: when, by which replay (by none where it was released), and whether it changed anything.
    resolved_at        timestamptz,
    resolved_by        uuid,
    had_effect         boolean,
    CONSTRAINT dead_letter_failed_says_how CHECK (
        (attempts > 0) = (code IS NOT NULL) AND (attempts > 0) = (error IS NOT NULL)
        AND (attempts > 0) = (first_failed_at IS NOT NULL) AND (attempts > 0) = (last_failed_at IS NOT NULL)),
    CONSTRAINT dead_letter_parked_has_failed CHECK (state NOT IN ('PARKED', 'REPLAYED') OR attempts > 0),
    CONSTRAINT dead_letter_resolved_says_what CHECK (
        (state = 'RESOLVED') = (resolved_at IS NOT NULL) AND (state = 'RESOLVED') = (had_effect IS NOT NULL)),
    CONSTRAINT dead_letter_edited_keeps_the_original CHECK (edited OR original_payload IS NULL)
);
CREATE INDEX dead_letter_group ON dead_letter (group_name, topic, dead_letter_id);
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

-- Processes that are at work, so that readiness can say what does not answer.
CREATE TABLE heartbeat (
    instance text        NOT NULL,
    role     text        NOT NULL,
    at       timestamptz NOT NULL,
    PRIMARY KEY (role, instance)
) WITH (fillfactor = 50);
