//! Times in documents: microseconds since the epoch. A column that the database makes of a document must not depend on a
//! setting, and the cast of a text to a time does.

pub(crate) use jiff::fmt::serde::timestamp::microsecond::{optional, required};
