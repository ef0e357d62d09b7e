//! The load: all rows that a decision is about, in one statement, locked in the order of the tables.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use super::statement::Statement;
use super::turns::Turn;
use super::write::Change;

/// A table of state.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Where keys of it stand in the documents of another table, where they do.
    pub follows: Option<Follows>,
    /// The table whose row of the same key it is a part of: that one is born before.
    pub part_of: Option<&'static str>,
}

impl Table {
    /// A table to whose rows nothing leads but their keys.
    #[must_use]
    pub const fn new(name: &'static str) -> Table {
        Table { name, follows: None, part_of: None }
    }
}

/// How keys of a table are found in the documents of another one. Both ways must find the same.
#[derive(Debug)]
pub struct Follows {
    /// The table of those documents.
    pub of: &'static str,
    /// A SELECT that answers the keys from `{rows}`, which stands for a relation with `key`, `state` and `bulk`.
    pub select: Cow<'static, str>,
    /// The same of one document in memory.
    pub keys: KeysOf,
}

/// Answers the keys that a document names.
pub struct KeysOf(pub Box<FindKeys>);

type FindKeys = dyn Fn(&StoredDocument) -> Vec<Uuid> + Send + Sync;

impl fmt::Debug for KeysOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeysOf")
    }
}

/// A table and a key.
pub(super) type Key = (&'static str, Uuid);

/// The keys that a decision is about, by table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys(BTreeMap<&'static str, BTreeSet<Uuid>>);

impl Keys {
    /// One key.
    #[must_use]
    pub fn of(table: &'static str, key: Uuid) -> Keys {
        let mut keys = Keys::default();
        keys.add(table, key);
        keys
    }

    /// Adds a key.
    pub fn add(&mut self, table: &'static str, key: Uuid) {
        self.0.entry(table).or_default().insert(key);
    }

    /// Adds keys of a table.
    pub fn extend(&mut self, table: &'static str, keys: impl IntoIterator<Item = Uuid>) {
        self.0.entry(table).or_default().extend(keys);
    }

    pub(super) fn of_table(&self, table: &str) -> Option<&BTreeSet<Uuid>> {
        self.0.get(table).filter(|keys| !keys.is_empty())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.values().all(BTreeSet::is_empty)
    }
}

/// A row of state as it was loaded.
#[derive(Clone, Debug)]
pub struct StoredDocument {
    /// The table.
    pub table: &'static str,
    /// The key.
    pub key: Uuid,
    /// The document as JSON.
    pub state: Arc<str>,
    /// What of it stands apart.
    pub bulk: Option<Arc<str>>,
}

/// What was loaded.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The rows.
    pub documents: Vec<StoredDocument>,
    pub(super) versions: HashMap<Key, Version>,
    pub(super) tables: &'static [Table],
    /// Where nothing is locked: what was remembered, to be checked by the write.
    pub(super) is_recalled: bool,
    /// Keys whose rows are taken to be absent, to be checked by the write.
    pub(super) taken_for_absent: Vec<Key>,
    /// The turn at it, where others in this process want the same.
    pub(super) turn: Option<Turn>,
}

/// Which writing of a row was loaded.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) number: i32,
    /// Where the server keeps it, its `ctid`: a row that a hand has changed without counting lies elsewhere.
    pub(super) place: Arc<str>,
}

impl Loaded {
    /// How often a row has been written; `None` where the load has not found it.
    #[must_use]
    pub fn version(&self, table: &'static str, key: Uuid) -> Option<i32> {
        self.versions.get(&(table, key)).map(|version| version.number)
    }

    /// The row as it is to be written.
    #[must_use]
    pub fn change(&self, table: &'static str, key: Uuid, state: String, bulk: Option<String>) -> Change {
        let version = self.versions.get(&(table, key)).cloned();
        let (version, place) = version.map(|version| (version.number, version.place)).unzip();
        Change { table, key, version, place, state, bulk }
    }

    /// What is remembered; nothing yet.
    pub(super) fn recalled(tables: &'static [Table]) -> Loaded {
        Loaded { tables, is_recalled: true, ..Loaded::default() }
    }

    pub(super) fn put(&mut self, document: StoredDocument, version: Version) {
        self.versions.insert((document.table, document.key), version);
        self.documents.push(document);
    }

    /// The keys of a table that are asked for, and those that follow from what is there of the tables before it.
    pub(super) fn wanted(&self, table: &Table, keys: &Keys) -> BTreeSet<Uuid> {
        let mut wanted = keys.of_table(table.name).cloned().unwrap_or_default();
        if let Some(follows) = &table.follows {
            let of = self.documents.iter().filter(|document| document.table == follows.of);
            wanted.extend(of.flat_map(|document| (follows.keys.0)(document)));
        }
        wanted
    }

    /// What it was decided from.
    pub(super) fn keys(&self) -> BTreeSet<Key> {
        self.versions.keys().chain(&self.taken_for_absent).copied().collect()
    }

    /// The same, while nobody else in this process changes it.
    pub(crate) fn in_turn(self, turn: Option<Turn>) -> Loaded {
        Loaded { turn, ..self }
    }

    pub(super) fn take_for_absent(&mut self, table: &'static str, key: Uuid) {
        self.taken_for_absent.push((table, key));
    }
}

/// Whether the rows are locked until the transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Nobody else may change them meanwhile.
    ForUpdate,
    /// They are only looked at.
    None,
}

/// A row that the caller has added to the statement, beside those of state.
#[derive(Debug)]
pub(crate) struct Beside {
    pub(crate) kind: i16,
    pub(crate) text: Option<String>,
    pub(crate) data: Option<String>,
}

/// The statement of a load.
///
/// PostgreSQL runs CTEs that lock in the order in which the outer UNION ALL reads them, which is that of `tables`; `ORDER BY` sorts
/// the locks within one. The snapshot is older than the waits of the locks: a row that somebody inserts meanwhile is not seen, so
/// that what is not found may be there all the same. The write notices.
#[derive(Default)]
pub(crate) struct Load {
    pub(crate) statement: Statement,
    selects: Vec<String>,
    tables: Vec<&'static str>,
    /// All there are, in the order of locks.
    all: &'static [Table],
}

/// The number of the first table among the kinds of rows; those below it are the caller's.
const FIRST_TABLE: i16 = 10;

impl Load {
    /// Adds a relation of (text, text) that is read, and locked where it says so, before all that is added later.
    pub(crate) fn beside(&mut self, kind: i16, sql: &str) {
        let name = format!("beside{kind}");
        self.statement.part(&format!("{name} (text, data)"), sql.to_owned());
        self.selects.push(format!("SELECT {kind}::smallint, NULL::uuid, 0, text, data, NULL FROM {name}"));
    }

    /// Adds the rows of those keys, and of the keys that follow from them.
    pub(crate) fn state(&mut self, tables: &'static [Table], keys: &Keys, lock: Lock) {
        self.all = tables;
        let lock = if lock == Lock::ForUpdate { " FOR NO KEY UPDATE" } else { "" };
        for table in tables {
            let own = keys.of_table(table.name);
            let follows = table.follows.as_ref().filter(|follows| self.tables.contains(&follows.of));
            if own.is_none() && follows.is_none() {
                continue;
            }
            let own: Vec<Uuid> = own.into_iter().flatten().copied().collect();
            let bound = self.statement.bind(own);
            let keys = match follows {
                None => format!("key = ANY({bound}::uuid[])"),
                Some(Follows { of, select, .. }) => {
                    let select = select.replace("{rows}", &format!("loaded_{of}"));
                    format!("key IN (SELECT unnest({bound}::uuid[]) UNION {select})")
                }
            };
            let name = table.name;
            self.statement.part(
                &format!("loaded_{name}"),
                format!("SELECT key, version, state, bulk, ctid FROM {name} WHERE {keys} ORDER BY key{lock}"),
            );
            let number = FIRST_TABLE + i16::try_from(self.tables.len()).unwrap_or(i16::MAX - FIRST_TABLE);
            self.selects.push(format!(
                "SELECT {number}::smallint, key, version, state::text, bulk::text, ctid::text FROM loaded_{name}"
            ));
            self.tables.push(name);
        }
    }

    /// Sends the statement; answers the rows of state and those that were added beside them.
    pub(crate) async fn run(
        self,
        connection: &mut PgConnection,
    ) -> Result<(Loaded, Vec<Beside>), sqlx::Error> {
        let (mut loaded, mut beside) = (Loaded { tables: self.all, ..Loaded::default() }, Vec::new());
        if self.selects.is_empty() {
            return Ok((loaded, beside));
        }
        for row in self.statement.fetch(&self.selects.join(" UNION ALL "), connection).await? {
            let kind: i16 = row.try_get(0)?;
            let table = usize::try_from(kind - FIRST_TABLE).ok().and_then(|index| self.tables.get(index));
            let Some(table) = table else {
                beside.push(Beside { kind, text: row.try_get(3)?, data: row.try_get(4)? });
                continue;
            };
            let key: Uuid = row.try_get(1)?;
            let version = Version { number: row.try_get(2)?, place: row.try_get::<&str, _>(5)?.into() };
            let (state, bulk): (&str, Option<&str>) = (row.try_get(3)?, row.try_get(4)?);
            let (state, bulk) = (state.into(), bulk.map(Into::into));
            loaded.put(StoredDocument { table, key, state, bulk }, version);
        }
        Ok((loaded, beside))
    }
}

/// Loads the rows of those keys.
///
/// # Errors
/// Where the database fails.
pub async fn load(
    connection: &mut PgConnection,
    tables: &'static [Table],
    keys: &Keys,
    lock: Lock,
) -> Result<Loaded, sqlx::Error> {
    let mut load = Load::default();
    load.state(tables, keys, lock);
    Ok(load.run(connection).await?.0)
}
