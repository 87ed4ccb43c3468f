//! Calls into the kernel module of OpenAFS.

use std::ffi::{c_long, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::{io, ptr};

/// An AFS system call as its device takes it; the last argument comes first (OpenAFS, src/config/afs_args.h,
/// afsprocdata).
#[repr(C)]
struct AfsCall {
    parameters: [c_long; 4],
    call: c_long,
}

/// Where a pioctl finds its input and writes its output (OpenAFS, src/util/vice.h, ViceIoctl).
#[repr(C)]
struct ViceIoctl {
    input: *const c_void,
    output: *mut c_void,
    input_size: i16,
    output_size: i16,
}

/// AFSCALL_PIOCTL and AFSCALL_SETPAG of src/config/afs_args.h.
const AFSCALL_PIOCTL: c_long = 20;
const AFSCALL_SETPAG: c_long = 21;
/// VIOC_SYSCALL of the same file. Its direction bits differ between architectures.
const VIOC_SYSCALL: libc::Ioctl = libc::_IOW::<*mut c_void>(b'C' as u32, 1);

fn afs_call(device: BorrowedFd<'_>, call: &AfsCall) -> io::Result<()> {
    // SAFETY: the module reads one `AfsCall`; its callers vouch for what its parameters point to.
    match unsafe { libc::ioctl(device.as_raw_fd(), VIOC_SYSCALL, ptr::from_ref(call)) } {
        0 => Ok(()),
        -1 => Err(io::Error::last_os_error()),
        // The module's own codes are positive. One that the module has not negated would arrive here.
        code => Err(io::Error::from_raw_os_error(code.saturating_abs())),
    }
}

/// Gives this thread a PAG of its own, in a new session keyring that replaces the old one. The module also writes
/// the PAG into the thread's groups.
///
/// # Errors
/// EINTR while the module's throttle makes a user wait; ENOTTY if `device` is not an AFS client's.
pub fn afs_setpag(device: BorrowedFd<'_>) -> io::Result<()> {
    afs_call(device, &AfsCall { parameters: [0; 4], call: AFSCALL_SETPAG })
}

/// Calls the pioctl `number` of a group (`V`, `C` or `O`) that concerns no file. The module does not tell how much
/// it has written, so the caller must zero `output` before and find the end of the answer in the answer itself.
///
/// # Errors
/// What the pioctl answers: EINVAL if the module does not know it, E2BIG if `output` is too small, EIO before the
/// module's daemons run.
pub fn afs_pioctl(device: BorrowedFd<'_>, group: u8, number: u8, input: &[u8], output: &mut [u8]) -> io::Result<()> {
    let size = |length: usize| i16::try_from(length).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL));
    let argument = ViceIoctl {
        input: input.as_ptr().cast(),
        output: output.as_mut_ptr().cast(),
        input_size: size(input.len())?,
        output_size: size(output.len())?,
    };
    let command = libc::_IOW::<ViceIoctl>(u32::from(group), u32::from(number));
    #[allow(clippy::cast_possible_wrap)]
    // There is no path, so the module follows no link. It takes the command as 32 bits, whatever their sign is here.
    let parameters = [0, ptr::from_ref(&argument) as c_long, command as c_long, 0];
    afs_call(device, &AfsCall { parameters, call: AFSCALL_PIOCTL })
}

#[cfg(test)]
mod tests {
    use super::super::files::open_file;
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn afs_calls_have_the_layout_of_the_module() {
        assert_eq!(size_of::<AfsCall>(), 5 * size_of::<c_long>());
        assert_eq!(std::mem::offset_of!(AfsCall, call), 4 * size_of::<c_long>());
        assert_eq!(size_of::<ViceIoctl>(), 24);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn ioctl_numbers_are_those_of_the_headers() {
        assert_eq!(VIOC_SYSCALL, 0x4008_4301);
        assert_eq!(libc::_IOW::<ViceIoctl>(u32::from(b'V'), 9), 0x4018_5609);
    }

    #[test]
    fn a_device_that_is_no_afs_client_is_refused() {
        let device = open_file(c"/dev/null").unwrap();
        assert_eq!(afs_setpag(device.as_fd()).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
        let answer = afs_pioctl(device.as_fd(), b'C', 13, &[], &mut [0; 4]);
        assert_eq!(answer.unwrap_err().raw_os_error(), Some(libc::ENOTTY));
        let answer = afs_pioctl(device.as_fd(), b'C', 13, &[], &mut [0; 40_000]);
        assert_eq!(answer.unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}
