//! What the kernel keeps of the PAGs: rings, and the registry with its records and leases. Below root's lock.

pub mod lease;
pub mod lock;
pub mod locked;
pub mod record;
pub mod registry;
pub mod ring;
