-- Eras of the log, and asking the relay to publish again.

ALTER TABLE relay_cursor
    -- Nothing up to here has been published in this era: 0 in the first one, since a log begins empty.
    ADD COLUMN published_after bigint NOT NULL DEFAULT 0,
    -- Where the log ended when the era began. Labels of earlier eras above it name events that this log does not have.
    ADD COLUMN era_after bigint NOT NULL DEFAULT 0,
    -- The era has begun here, but its topics are not known to be fresh yet. Nothing is published meanwhile.
    ADD COLUMN adopting boolean NOT NULL DEFAULT false,
    -- Of which topics everything above repeat_after is asked for; null for all of them.
    ADD COLUMN repeat_topics text[];
