//! The cases, by noun.

mod ends;
mod leases;
mod looks;
mod pushes;
mod refusals;
mod sessions;
mod settles;

pub(super) use ends::*;
pub(super) use leases::*;
pub(super) use looks::*;
pub(super) use pushes::*;
pub(super) use refusals::*;
pub(super) use sessions::*;
pub(super) use settles::*;
