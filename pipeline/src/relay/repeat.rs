//! The asking of consumers that miss records. Operators ask by `rewind.rs`.

use sqlx::PgPool;

/// Asks the relay to publish everything above `position` again for who misses what follows it in a partition. Nothing is
/// asked for where the stored cursor is above it and nothing has been published to the partition since, or not yet again: the relay comes to
/// it by itself, and would never get there if it were sent back on its way. What lies above the stored cursor may have been published
/// all the same, since that is behind; a step back to there is a short one.
///
/// # Errors
/// Where the database fails.
pub async fn request_repeat(
    pool: &PgPool,
    topic: &str,
    partition: i16,
    position: i64,
) -> Result<(), sqlx::Error> {
    // Asked for of some topics only, it is not asked for of all.
    sqlx::query!(
        "UPDATE relay_cursor SET repeat_after = LEAST(repeat_after, $3), repeat_topics = NULL
         WHERE (position <= $3 OR (tails -> $1::text -> $2::int ->> 0)::bigint > $3)
             AND (repeat_after IS NULL OR repeat_after > $3 OR repeat_topics IS NOT NULL)",
        topic,
        i32::from(partition),
        position,
    )
    .execute(pool)
    .await?;
    Ok(())
}
