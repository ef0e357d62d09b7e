//! The words of the log and their codes. Every event is written with some, so it has codes of two bytes where it would have words.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use sqlx::{PgExecutor, PgPool};

/// The words that this process has met. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Words(Arc<RwLock<Known>>);

#[derive(Debug, Default)]
struct Known {
    codes: HashMap<String, i16>,
    words: HashMap<i16, Arc<str>>,
}

impl Words {
    /// The code of a word, if it is known here.
    #[must_use]
    pub fn code(&self, word: &str) -> Option<i16> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).codes.get(word).copied()
    }

    /// The word of a code, if it is known here.
    #[must_use]
    pub fn word(&self, code: i16) -> Option<Arc<str>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).words.get(&code).cloned()
    }

    /// Those of the words that are not known here, each once.
    pub(crate) fn unknown<'a>(&self, words: impl Iterator<Item = &'a str>) -> Vec<String> {
        let unknown: BTreeSet<&str> = words.filter(|word| self.code(word).is_none()).collect();
        unknown.into_iter().map(str::to_owned).collect()
    }

    /// Gives codes to those words that have none. In a statement of its own: a code must outlive the transaction that first needs
    /// it.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn learn(&self, pool: &PgPool, words: impl Iterator<Item = &str>) -> Result<(), sqlx::Error> {
        let unknown = self.unknown(words);
        if unknown.is_empty() {
            return Ok(());
        }
        // Looked at before it is inserted: each attempt at an insert draws a number, and there are few.
        sqlx::query!(
            "INSERT INTO log_word (word)
             SELECT word FROM unnest($1::text[]) AS new (word)
             WHERE NOT EXISTS (SELECT FROM log_word known WHERE known.word = new.word) ORDER BY word
             ON CONFLICT DO NOTHING",
            &unknown,
        )
        .execute(pool)
        .await?;
        self.read_all(pool).await
    }

    /// Reads the words that other processes have given codes to.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn read_all(&self, executor: impl PgExecutor<'_>) -> Result<(), sqlx::Error> {
        let rows = sqlx::query!("SELECT code, word FROM log_word").fetch_all(executor).await?;
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            known.words.insert(row.code, Arc::from(row.word.as_str()));
            known.codes.insert(row.word, row.code);
        }
        Ok(())
    }
}
