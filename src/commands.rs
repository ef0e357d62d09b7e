//! The commands, one file each. None knows another; what several need stands beside this module.

pub(crate) mod api;
pub(crate) mod dlq;
pub(crate) mod keys;
pub(crate) mod migrate;
pub(crate) mod order;
pub(crate) mod payments;
pub(crate) mod relay;
pub(crate) mod replay;
pub(crate) mod roles;
pub(crate) mod topics;
pub(crate) mod up;
pub(crate) mod verify;
pub(crate) mod worker;
