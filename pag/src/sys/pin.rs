//! Keeps a program, and all that it starts, in its session keyring.

use std::io;

use super::errno::cerr;

/// `offsetof(struct seccomp_data, ...)`: the number of the call, the architecture, and the low half of the first argument.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = if cfg!(target_endian = "big") { 20 } else { 16 };

/// The numbers that keyctl(2) has, each beside its architecture (`AUDIT_ARCH_...`). A kernel also runs programs of related
/// architectures, under other numbers. Empty where the numbers are not known.
const KEYCTL: &[(u32, u32)] = if cfg!(target_arch = "x86_64") {
    // x86_64, x32, i386
    &[(0xc000_003e, 250), (0xc000_003e, 0x4000_0000 | 250), (0x4000_0003, 288)]
} else if cfg!(target_arch = "aarch64") {
    // AArch64, 32-bit Arm
    &[(0xc000_00b7, 219), (0x4000_0028, 311)]
} else {
    &[]
};

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// From now on KEYCTL_JOIN_SESSION_KEYRING fails with ENOSYS in this thread and in all that it starts. Container engines
/// take this answer for a kernel without keyrings and go on in the keyring that they have; with another answer runc and
/// crun give up.
///
/// Without CAP_SYS_ADMIN the kernel asks for PR_SET_NO_NEW_PRIVS, which is set then: programs that gain rights by their
/// set-user-ID bit or file capabilities gain none.
///
/// # Errors
/// `Unsupported` where the number of keyctl(2) is not known; else what seccomp(2) answers.
pub fn pin_session_keyring() -> io::Result<()> {
    let mut filter = filter().ok_or(io::ErrorKind::Unsupported)?;
    let length = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
    // SAFETY: a program of that length, which lives over the call.
    let install = || unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, (&raw const program).cast::<libc::c_void>())
    };
    if cerr(install()).is_ok() {
        return Ok(());
    }
    // SAFETY: takes integers.
    cerr(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())?;
    cerr(install()).map(drop)
}

/// The filter, in instructions of BPF. None where keyctl's number is not known.
fn filter() -> Option<Vec<libc::sock_filter>> {
    let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let allow = step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0);
    let mut steps = Vec::new();
    for (architecture, number) in KEYCTL {
        // A jump counts the instructions that it passes over: what follows is for this number of this architecture.
        steps.extend([
            step(LOAD, ARCHITECTURE, 0, 0),
            step(IF_EQUAL, *architecture, 0, 6),
            step(LOAD, NUMBER, 0, 0),
            step(IF_EQUAL, *number, 0, 4),
            step(LOAD, FIRST_ARGUMENT, 0, 0),
            step(IF_EQUAL, libc::KEYCTL_JOIN_SESSION_KEYRING, 0, 1),
            step(RETURN, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned(), 0, 0),
            allow,
        ]);
    }
    (!steps.is_empty()).then(|| {
        steps.push(allow);
        steps
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::fork::tests::ask;
    use super::super::host::join_session;
    use super::*;

    #[test]
    fn a_pinned_process_cannot_leave_its_session_keyring_and_can_use_it() {
        let answer = ask(Instant::now() + Duration::from_secs(10), |put| {
            let before = crate::keyring::session();
            let pinned = pin_session_keyring();
            let refused = join_session(None).is_err_and(|error| error.raw_os_error() == Some(libc::ENOSYS));
            let stays = before.is_ok_and(|before| crate::keyring::session().is_ok_and(|after| after == before));
            put(&[u8::from(pinned.is_ok()), u8::from(refused), u8::from(stays)])
        });
        assert_eq!(answer.unwrap().bytes().unwrap()[..], [1, 1, 1], "pinned, refused, still there");
    }
}
