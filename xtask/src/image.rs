//! The files of a machine of tier 3: a Debian tree with a kernel and OpenAFS's module, a disk image of it, and states
//! of its memory in which a cell runs and a client is loaded. They are cached by a hash of their recipe.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pag_tests::scenarios::tier3::Client;

use crate::cache::{self, cache, lock, scratch};
use crate::machine::Overlay;
use crate::roots::bootstrap;
use crate::shell::{run, sh};
use crate::vm::{self, Disk, Vm};

/// The releases: OpenAFS 1.8.9 on Linux 6.1, and 1.8.13 on 6.12. Only the long form needs the second.
pub(crate) const SUITES: [&str; 2] = ["bookworm", "trixie"];

const PACKAGES: &str = "systemd,systemd-sysv,udev,kmod,dbus,dbus-user-session,libpam-systemd,systemd-container,\
    openssh-server,openssh-client,sshpass,keyutils,procps,psmisc,strace,cron,at,sudo,login,passwd,util-linux,krb5-kdc,\
    krb5-admin-server,krb5-user,libpam-krb5,libpam-afs-session,openafs-client,openafs-fileserver,openafs-dbserver,\
    openafs-krb5,kafs-client,kstart,busybox-static,iproute2,libgcc-s1,xz-utils,apache2-bin,\
    libapache2-mod-auth-gssapi,curl";

/// The packages that build the module, in a tree of their own, since the machine needs no compiler.
const BUILDER: &str = "linux-headers-amd64,openafs-modules-dkms";

/// Answers to the questions of the Kerberos and AFS packages.
const ANSWERS: [&str; 9] = [
    "krb5-config krb5-config/default_realm string EXAMPLE.TEST",
    "krb5-config krb5-config/add_servers boolean false",
    "openafs-client openafs-client/thiscell string example.test",
    "openafs-client openafs-client/cell-info string 10.99.0.10",
    "openafs-client openafs-client/dynroot select Yes",
    "openafs-client openafs-client/run-client boolean false",
    "openafs-client openafs-client/afsdb boolean false",
    "openafs-fileserver openafs-fileserver/thiscell string example.test",
    "krb5-admin-server krb5-admin-server/kadmind boolean false",
];

const KERNEL: &str = include_str!("vm-kernel.sh");
const SETUP: &str = include_str!("vm-setup.sh");
const PROVISION: &str = include_str!("vm-provision.sh");

/// A machine's files: `kernel`, `initrd`, `disk.img`, and for each client a disk and a state that resume together.
#[derive(Debug, Clone)]
pub(crate) struct Image(PathBuf);

impl Image {
    /// The directory of its files.
    pub(crate) fn directory(&self) -> &Path {
        &self.0
    }

    /// The versions of its kernel and packages.
    pub(crate) fn versions(&self) -> String {
        fs::read_to_string(self.0.join("versions")).unwrap()
    }
}

/// The image of a release. It is built if there is none of this recipe.
pub(crate) fn image(suite: &str) -> Image {
    let mut hasher = DefaultHasher::new();
    (suite, PACKAGES, BUILDER, ANSWERS, KERNEL).hash(&mut hasher);
    let base = cache().join(format!("vm-{suite}-base-{:016x}", hasher.finish()));
    (SETUP, PROVISION, vm::recipe()).hash(&mut hasher);
    let path = cache().join(format!("vm-{suite}-{:016x}", hasher.finish()));
    let _lock = lock(&format!("vm-{suite}"));
    if !path.exists() {
        let begun = Instant::now();
        println!("building a machine with an AFS cell, {suite} (once; kept in {})", cache().display());
        cache::sweep();
        build(suite, &base, &path);
        cache::is_used(&base);
        println!("  vm {suite}: all of it took {} s", begun.elapsed().as_secs());
    }
    cache::is_used(&path);
    Image(path)
}

/// Runs a step, and prints its time.
fn step<T>(suite: &str, what: &str, action: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = action();
    println!("  vm {suite}: {what}: {:.1} s", begun.elapsed().as_secs_f64());
    result
}

/// Builds OpenAFS's module with DKMS, unless it is there. This takes longest. The directory has the name of the
/// kernel's version.
fn module(suite: &str, base: &Path) -> PathBuf {
    let place = base.join("module");
    if !place.exists() {
        let (builder, new) = (base.join("builder"), base.join("module-new"));
        step(suite, "OpenAFS's module", || {
            bootstrap(&format!("OpenAFS's module for {suite}"), suite, BUILDER, &[], &builder);
        });
        let (b, n) = (builder.display(), new.display());
        sh(&format!(
            "rm -rf '{n}'; cd '{b}/usr/lib/modules' && for version in *; do mkdir -p '{n}'/$version && \
             cp $version/updates/dkms/openafs.ko* '{n}'/$version/; done; rm -rf --one-file-system '{b}'"
        ));
        fs::rename(&new, &place).unwrap();
    }
    place
}

/// Makes the machine's tree, unless it is there.
fn tree(suite: &str, base: &Path) -> PathBuf {
    let place = base.join("root");
    if !place.exists() {
        let new = base.join("root-new");
        let scratch = scratch("tree");
        fs::write(scratch.join("kernel.sh"), KERNEL).unwrap();
        fs::write(scratch.join("answers"), ANSWERS.join("\n")).unwrap();
        let s = scratch.display();
        let hooks = [
            format!(
                "--essential-hook=cp '{s}/answers' \"$1/root/\"; chroot \"$1\" debconf-set-selections /root/answers"
            ),
            format!("--customize-hook=cp '{s}/kernel.sh' \"$1/root/\"; chroot \"$1\" sh /root/kernel.sh"),
            "--customize-hook=rm \"$1/root/answers\" \"$1/root/kernel.sh\"".to_owned(),
        ];
        step(suite, "its tree", || bootstrap(&format!("a tree of {suite}"), suite, PACKAGES, &hooks, &new));
        fs::remove_dir_all(&scratch).ok();
        fs::rename(&new, &place).unwrap();
    }
    place
}

/// Makes a disk of the tree, with the kernel beside it.
fn disk(tree: &Path, new: &Path) {
    let copy = Overlay::of(tree, "disk");
    let root = copy.tree();
    let (r, n) = (root.display(), new.display());
    fs::write(root.join("root/setup.sh"), SETUP).unwrap();
    fs::write(root.join("usr/local/sbin/lab-provision"), PROVISION).unwrap();
    sh(&format!("chroot '{r}' sh /root/setup.sh 2>&1"));
    sh(&format!("cd '{r}' && rm root/setup.sh && mv boot/kernel boot/initrd '{n}/' && rm -f boot/vmlinuz-*"));
    let packages = "systemd openafs-client kafs-client libpam-afs-session libpam-krb5";
    let list = sh(&format!("dpkg-query --admindir='{r}/var/lib/dpkg' -W -f ', ${{Package}} ${{Version}}' {packages}"));
    let kernel = sh(&format!("ls '{r}/usr/lib/modules'"));
    fs::write(new.join("versions"), format!("Linux {}{list}", kernel.trim())).unwrap();
    run(Command::new("truncate").args(["-s", "3G"]).arg(new.join("disk.img")));
    run(Command::new("mkfs.ext4")
        .args(["-q", "-F", "-O", "^metadata_csum", "-E", "lazy_itable_init=1", "-d"])
        .arg(&root)
        .arg(new.join("disk.img")));
}

/// Makes the image and its states.
fn build(suite: &str, base: &Path, path: &Path) {
    let new = path.with_extension("new");
    sh(&format!("rm -rf '{n}'; mkdir -p '{n}' '{b}'", n = new.display(), b = base.display()));
    let image = Image(new.clone());
    // A busy host may need minutes.
    let limit = Duration::from_secs(600);
    std::thread::scope(|scope| {
        let module = scope.spawn(|| module(suite, base));
        let tree = tree(suite, base);
        step(suite, "its disk", || disk(&tree, &new));
        let mut vm = step(suite, "its first boot", || {
            let mut vm = Vm::start(&image, &Disk::first("disk.img", Client::None.name()), None);
            vm.is_ready();
            vm
        });
        // The servers need no module.
        step(suite, "its cell's servers", || vm.must("provision servers", limit));
        let module = module.join().expect("a module");
        let kernel = sh(&format!("ls '{}/usr/lib/modules'", tree.display()));
        let m = module.join(kernel.trim());
        assert!(m.exists(), "no module for {kernel}; remove {} to have both built again", base.display());
        sh(&format!("cp '{}'/openafs.ko* '{}/'", m.display(), vm.share().display()));
        step(suite, "its users' homes", || {
            vm.must("module", limit);
            vm.must("provision homes", limit);
        });
        vm.must("settle", limit);
        step(suite, "its state without a client", || vm.freeze(Client::None.name()));
    });
    for client in [Client::OpenAfs, Client::Kafs] {
        step(suite, &format!("its state with the client {}", client.name()), || {
            let mut vm = Vm::resume(&image, Client::None.name(), Some(client.name()));
            vm.must(&format!("client {}", client.name()), limit);
            vm.must("settle", limit);
            vm.freeze(client.name());
        });
    }
    fs::rename(&new, path).unwrap();
}
