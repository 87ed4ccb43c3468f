//! Refuses to be built for processors of 32 bits.
//!
//! There `SYS_setresuid`, `SYS_setgroups`, `SYS_setfsuid` and their like are the calls with ids of 16 bits (i386, arm): a
//! child that is to become uid 65536 would stay root. The layouts of the AFS ioctl and of times differ, too, and nobody has
//! run any of it. This file holds nothing else, so that a test can give it to the compiler by itself.

#[cfg(not(target_pointer_width = "64"))]
compile_error!(
    "pam_pag is built for 64-bit processors only: it changes ids by raw system calls, which take ids of 16 bits on some \
     32-bit processors, and a child would stay root"
);
