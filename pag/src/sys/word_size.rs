//! Refuses to be built for processors of 32 bits.
//!
//! On i386 and arm `SYS_setresuid`, `SYS_setgroups`, `SYS_setfsuid` and their like take ids of 16 bits, so a child
//! that must become uid 65536 would stay root. The AFS ioctl and times also have other layouts there, and no test
//! runs them. This file holds nothing else, so that a test can compile it by itself.

#[cfg(not(target_pointer_width = "64"))]
compile_error!(
    "pam_pag is built for 64-bit processors only: it changes ids by raw system calls, which take ids of 16 bits on some \
     32-bit processors, and a child would stay root"
);
