//! The PAGs in the kernel: their rings, and the registry with their records and leases. Changes are made under a
//! uid's lock.

pub mod lease;
pub mod lock;
pub mod locked;
pub mod record;
pub mod registry;
pub mod ring;
