//! Which users may see the PAGs of which users.

/// Root sees all PAGs.
const ROOT: u32 = 0;

/// Whether `uid` may see the PAGs of `owner`. No other code here decides this.
pub(super) fn may_see(uid: u32, owner: u32) -> bool {
    uid == ROOT || uid == owner
}
