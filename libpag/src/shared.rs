//! What a process and its PAGs share.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use std::{env, io};

use pag::keyring::{self, Mask, Serial};
use pag::process_ring::{Kind, ProcessRing};
use pag::sys::{self, Identity, Parked};

use crate::error::{Error, Limit, Result};
use crate::make;
use crate::names::{Names, Ring};

/// The process that has been opened, by its pid; 0 if none has. A forked child has another pid.
static OPEN: AtomicU32 = AtomicU32::new(0);

/// The time for making the keyring for no PAG.
const START: Duration = Duration::from_secs(5);

/// Most PAGs that one child ends.
const AT_ONCE: usize = 500;

/// What a process and its PAGs share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) names: Names,
    /// The keyring for no PAG.
    pub(crate) no_pag: Ring,
    pub(crate) origin: Origin,
    holder: Serial,
    /// The ring of the default PAG, as a word; 0 if there is none.
    default: AtomicU64,
    is_closed: AtomicBool,
    /// The rings of the PAGs that have not ended.
    living: Mutex<Vec<Ring>>,
    _parked: Parked,
}

/// The process as it was when it was opened. Later, another thread might change the environment.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) identity: Identity,
    /// The environment of seeders, as far as they get any.
    pub(crate) environment: Vec<CString>,
    /// The directory for temporary files.
    pub(crate) temporary: PathBuf,
}

impl Origin {
    fn now() -> Result<Self> {
        let ids = sys::ids();
        let ([uid, ..], [gid, ..]) = (ids.uid, ids.gid);
        if ids.uid != [ids.fsuid; 3] || ids.gid != [ids.fsgid; 3] {
            let source = io::Error::other("it has several uids or gids at once; set them all before you open");
            return Err(Error::System { doing: "open this process for PAGs", source });
        }
        let variable = |name: &str| {
            let value = env::var_os(name)?;
            CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
        };
        Ok(Origin {
            identity: Identity { uid, gid, groups: Vec::new() },
            environment: ["KRB5_CONFIG", "KRB5_TRACE"].into_iter().filter_map(variable).collect(),
            temporary: env::temp_dir(),
        })
    }
}

/// Whether this process is open. It stays so until this value is dropped.
struct Opening(u32);

impl Opening {
    fn begin() -> Result<Self> {
        let pid = std::process::id();
        match OPEN.fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| (open != pid).then_some(pid)) {
            Ok(_) => Ok(Opening(pid)),
            Err(_) => Err(Error::AlreadyOpen),
        }
    }

    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        let _ = OPEN.compare_exchange(self.0, 0, Ordering::AcqRel, Ordering::Acquire);
    }
}

impl Shared {
    /// Opens this process.
    pub(crate) fn open() -> Result<Self> {
        let opening = Opening::begin()?;
        let origin = Origin::now()?;
        sys::close_memory().map_err(Error::system("close this process's memory (PR_SET_DUMPABLE)"))?;
        let names = Names::new().map_err(Error::system("map memory that is wiped at fork (MADV_WIPEONFORK)"))?;
        let holder = keyring::add("keyring", "pag:process", b"", keyring::process_id())
            .map_err(Error::system("make the keyring that holds a process's PAGs"))?;
        let opened = || {
            keyring::set_mask(holder, Mask::PROCESS_HOLDER)
                .map_err(Error::system("close the keyring that holds a process's PAGs"))?;
            // After the holder: it shares the process keyring, and keeps it as long as it lives.
            let parked = Parked::start().map_err(Error::system("start a thread that keeps a process's PAGs"))?;
            let ring = make::make(Kind::NoPag, holder, Limit::of(START))?;
            let no_pag = names.keep(&ring).map_err(Error::system("keep a ring's name"))?;
            Ok((parked, no_pag))
        };
        match opened() {
            Ok((parked, no_pag)) => {
                opening.keep();
                Ok(Shared {
                    names,
                    no_pag,
                    origin,
                    holder,
                    default: AtomicU64::new(0),
                    is_closed: AtomicBool::new(false),
                    living: Mutex::default(),
                    _parked: parked,
                })
            }
            Err(error) => {
                let _ = keyring::unlink(holder, keyring::process_id());
                Err(error)
            }
        }
    }

    /// Fails in a forked child, and when the process has been closed.
    pub(crate) fn check(&self) -> Result<()> {
        if self.names.are_of_the_parent() {
            return Err(Error::Forked);
        }
        if self.is_closed.load(Ordering::Acquire) { Err(Error::Ended) } else { Ok(()) }
    }

    /// The default PAG.
    pub(crate) fn default(&self) -> Option<Ring> {
        Ring::of_word(self.default.load(Ordering::Acquire))
    }

    /// Sets the default PAG.
    pub(crate) fn set_default(&self, ring: Option<Ring>) {
        self.default.store(ring.map_or(0, Ring::to_word), Ordering::Release);
    }

    /// Makes the ring of a PAG. It lives until [`end`](Shared::end).
    pub(crate) fn make(&self, limit: Limit) -> Result<(Ring, ProcessRing)> {
        let made = make::make(Kind::Pag, self.holder, limit)?;
        match self.names.keep(&made) {
            Ok(ring) => {
                let mut living = self.living();
                // Closing takes the list after it has said so.
                if self.is_closed.load(Ordering::Acquire) {
                    drop(living);
                    let _ = self.end_all(&[ring]);
                    return Err(Error::Ended);
                }
                living.push(ring);
                drop(living);
                Ok((ring, made))
            }
            Err(source) => {
                let _ = make::end(&[made], self.holder);
                Err(Error::System { doing: "keep one more PAG: a process may have 65,535", source })
            }
        }
    }

    /// Ends a PAG; does nothing if it has ended already.
    pub(crate) fn end(&self, ring: Ring) -> Result<()> {
        let mut living = self.living();
        let place = living.iter().position(|one| *one == ring);
        let found = place.map(|place| living.swap_remove(place));
        drop(living);
        found.map_or(Ok(()), |ring| self.end_all(&[ring]))
    }

    fn end_all(&self, rings: &[Ring]) -> Result<()> {
        let mut result = Ok(());
        for rings in rings.chunks(AT_ONCE) {
            let copies: Vec<ProcessRing> = rings.iter().map(|ring| self.names.for_child(*ring)).collect();
            result = make::end(&copies, self.holder).and(result);
            for ring in rings {
                self.names.forget(*ring);
            }
        }
        result
    }

    /// Ends all PAGs. Every call fails from now on, and the process may be opened again.
    pub(crate) fn close(&self) {
        if self.check().is_err() {
            return;
        }
        self.is_closed.store(true, Ordering::Release);
        let living = std::mem::take(&mut *self.living());
        let _ = self.end_all(&living);
        // The keyring for no PAG stays for threads that leave later.
        let _ = keyring::unlink(self.holder, keyring::process_id());
        drop(Opening(std::process::id()));
    }

    fn living(&self) -> std::sync::MutexGuard<'_, Vec<Ring>> {
        self.living.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
