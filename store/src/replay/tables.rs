//! The tables that are made again from the log, and what of them the log does not know.

use ordermill_domain::aggregate::Kind;
use ordermill_domain::kinds;

/// A table that is made again from the log.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// The columns of its primary key.
    pub key: &'static [&'static str],
    /// What a summary counts its rows by, as SQL.
    pub(super) state: Option<String>,
    /// What a summary adds up, by name, as SQL.
    pub(super) sums: Vec<(&'static str, String)>,
}

/// The columns of a table of state that can't be made from the log, with the reason; they are not compared. Generated columns
/// are functions of those that are.
pub const NOT_IN_THE_LOG: [(&str, &str); 1] = [(
    "version",
    "counts how often the row was written, and a batch writes it once however many events it has",
)];

/// Every table that is made again: those of state, then the sums of sales.
pub fn tables() -> impl Iterator<Item = Table> {
    kinds().map(of_state).chain([sales()])
}

fn of_state(kind: &Kind) -> Table {
    let document = match kind.bulk {
        Some(member) => format!("state || jsonb_build_object('{member}', bulk)"),
        None => "state".to_owned(),
    };
    let value = |path: &str| format!("jsonb_path_query_first({document}, '$.{path}') #>> '{{}}'");
    let sum = |path: &&'static str| {
        let name = path.rsplit('.').next().unwrap_or(path);
        let of_row =
            format!("SELECT sum(value::bigint) FROM jsonb_path_query({document}, '$.{path}') AS value");
        (name, format!("({of_row})"))
    };
    Table {
        name: kind.noun,
        key: &["key"],
        state: kind.counted_by.map(value),
        sums: kind.sums.iter().map(sum).collect(),
    }
}

fn sales() -> Table {
    // The other levels say the same once more.
    let of_all = |figure| (figure, format!("CASE level WHEN 'ALL' THEN {figure} END"));
    Table {
        name: "sales",
        key: &["level", "category", "product_id", "bucket"],
        state: Some("level".to_owned()),
        sums: ["quantity", "revenue", "orders"].map(of_all).to_vec(),
    }
}
