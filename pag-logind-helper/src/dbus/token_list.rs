//! The tokens in rings, read and discarded by children while the helper's loop goes on: the kernel shows tokens to a
//! ring's members only, and a child that hangs in an AFS client must not hold up the helper.
//!
//! One child reads any number of rings, one after the other: a join costs microseconds, a child a millisecond. The
//! child may allocate, since this daemon has one thread, which was not in the allocator when it made the child.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use pag::afs;
use pag::store::ring::Ring;
use pag::sys::{self, Child, Exit};
use pag::types;
use pag::types::{Cell, PagId};
use zruntime::lock::Semaphore;
use zruntime::{AsyncIo, SharedRuntime};

/// Longest time for a child.
const LIMIT: Duration = Duration::from_secs(2);
/// Children at once, with those that were killed and still hang in the kernel: more would take from the helper's own
/// work.
const AT_ONCE: usize = 4;
/// Tokens that are told of one ring: a user may put as many into it as their quota allows.
const TOKENS: usize = 64;

/// A token as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) client: String,
    pub(crate) cell: String,
    /// Empty where the client does not say.
    pub(crate) principal: String,
    /// 0 where the client does not say.
    pub(crate) vice_id: i64,
    /// In seconds since the epoch; 0 where the client does not say.
    pub(crate) expires: u64,
    /// Good, expired or revoked.
    pub(crate) state: String,
}

/// Makes the children.
pub(crate) struct RingTokens<'a> {
    runtime: &'a SharedRuntime,
    room: Semaphore,
    /// Killed, and not yet collected.
    killed: RefCell<Vec<Child>>,
}

/// A child that runs. Dropped, it is killed.
struct Running<'a> {
    child: Option<Child>,
    killed: &'a RefCell<Vec<Child>>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            child.kill();
            self.killed.borrow_mut().push(child);
        }
    }
}

impl<'a> RingTokens<'a> {
    /// Without a child yet.
    pub(crate) fn new(runtime: &'a SharedRuntime) -> Self {
        RingTokens { runtime, room: Semaphore::new(AT_ONCE), killed: RefCell::default() }
    }

    /// The tokens in these rings. A ring that can't be entered is left out.
    ///
    /// # Errors
    /// Why, when no child could be made, or it takes too long.
    pub(crate) async fn list(&self, rings: &[(PagId, Ring)]) -> Result<BTreeMap<PagId, Vec<Token>>, String> {
        let text = self
            .run(|out| {
                let mut text = String::new();
                for (id, ring) in rings {
                    if ring.join_in_child()
                        && let Ok(tokens) = afs::tokens_as_member(ring)
                    {
                        write_tokens(&mut text, *id, &tokens);
                    }
                }
                sys::write_all(out, text.as_bytes())
            })
            .await?;
        Ok(read_tokens(&String::from_utf8_lossy(&text)))
    }

    /// Discards the tokens for one cell, or all, in `ring`.
    ///
    /// # Errors
    /// Why, when that failed.
    pub(crate) async fn discard(&self, ring: &Ring, cell: Option<&Cell>) -> Result<(), String> {
        self.run(|_| ring.join_in_child() && afs::discard_as_member(ring, cell).is_ok()).await.map(drop)
    }

    /// Runs `work` in a child and gives what it writes.
    #[allow(unsafe_code)] // makes a child
    async fn run(&self, work: impl FnOnce(BorrowedFd<'_>) -> bool) -> Result<Vec<u8>, String> {
        let _permit = self.room.acquire().await;
        self.killed.borrow_mut().retain(|child| matches!(child.try_wait(), Ok(None)));
        if self.killed.borrow().len() >= AT_ONCE {
            return Err("earlier children hang in an AFS client".to_owned());
        }
        let (read, write) = sys::pipe().map_err(|error| error.to_string())?;
        // SAFETY: this program has one thread, so no lock is held, and no program is executed.
        let child = unsafe { sys::child(|| u8::from(!work(write.as_fd()))) }.map_err(|error| error.to_string())?;
        drop(write);
        let pidfd = child.pidfd();
        let mut running = Running { child: Some(child), killed: &self.killed };
        let ended = async {
            let pipe = AsyncIo::new(self.runtime, read)?;
            let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
            loop {
                let length = pipe.read_with(|pipe| sys::read(pipe.as_fd(), &mut buffer)).await?;
                if length == 0 {
                    break;
                }
                bytes.extend_from_slice(buffer.get(..length).unwrap_or(&[]));
            }
            // Its pipe is closed a little before it can be collected.
            AsyncIo::new_nonblocking(self.runtime, pidfd?)?.readable().await?;
            std::io::Result::Ok(bytes)
        };
        let ended = self.runtime.timeout(LIMIT, ended).await;
        let bytes = ended.map_err(|_| "it takes too long".to_owned())?.map_err(|error| error.to_string())?;
        let exit = running.child.as_ref().map(Child::try_wait);
        if matches!(exit, Some(Ok(Some(_)))) {
            running.child = None;
        }
        match exit {
            Some(Ok(Some(Exit::Status(0)))) => Ok(bytes),
            _ => Err("the ring cannot be entered".to_owned()),
        }
    }
}

/// A line for the ring, and one for each token.
fn write_tokens(text: &mut String, id: PagId, tokens: &[types::Token]) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{id}");
    for token in tokens.iter().take(TOKENS) {
        let principal = token.principal.as_ref().map(ToString::to_string).unwrap_or_default();
        let vice_id = token.vice_id.unwrap_or(0);
        let (client, cell, expires, state) = (token.client, &token.cell, token.expires, token.state.as_str());
        let _ = writeln!(text, "{id} {client} {cell} {vice_id} {expires} {state} {principal}");
    }
}

fn read_tokens(text: &str) -> BTreeMap<PagId, Vec<Token>> {
    let mut found: BTreeMap<PagId, Vec<Token>> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let Some(id) = words.next().and_then(PagId::parse) else { continue };
        found.entry(id).or_default().extend(read_token(&mut words));
    }
    found
}

fn read_token<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Token> {
    Some(Token {
        client: words.next()?.to_owned(),
        cell: words.next()?.to_owned(),
        vice_id: words.next()?.parse().ok()?,
        expires: words.next()?.parse().ok()?,
        state: words.next()?.to_owned(),
        // There is no space in one.
        principal: words.next()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pag::types::{Client, Principal, TokenState};

    fn token(cell: &str, principal: Option<&str>, vice_id: Option<i64>) -> types::Token {
        types::Token {
            client: Client::OpenAfs,
            cell: cell.parse().unwrap(),
            principal: principal.map(|text| Principal::parse(text).unwrap()),
            vice_id,
            kind: None,
            expires: 7,
            state: TokenState::Good,
        }
    }

    #[test]
    fn tokens_come_out_as_they_went_in() {
        let mut text = String::new();
        let tokens = [token("a.test", Some("alice/admin@A.TEST"), None), token("b.test", None, Some(-204))];
        write_tokens(&mut text, PagId::from(1), &tokens);
        write_tokens(&mut text, PagId::from(2), &[]);
        let found = read_tokens(&text);
        let told: Vec<(&str, &str, i64, u64)> = found[&PagId::from(1)]
            .iter()
            .map(|token| (token.cell.as_str(), token.principal.as_str(), token.vice_id, token.expires))
            .collect();
        assert_eq!(told, [("a.test", "alice/admin@A.TEST", 0, 7), ("b.test", "", -204, 7)]);
        assert!(found[&PagId::from(1)].iter().all(|token| token.client == "openafs" && token.state == "good"));
        assert!(found[&PagId::from(2)].is_empty(), "an empty ring was looked into, too");
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_ring_with_very_many_tokens_tells_some() {
        let tokens: Vec<types::Token> = (0..200).map(|number| token(&format!("c{number}.test"), None, None)).collect();
        let mut text = String::new();
        write_tokens(&mut text, PagId::from(1), &tokens);
        assert_eq!(read_tokens(&text)[&PagId::from(1)].len(), TOKENS);
    }
}

/// Run by `tests/children.rs`, which has one thread.
#[cfg(test)]
#[allow(dead_code)]
pub(crate) mod children {
    use super::*;
    use std::time::Instant;

    pub(crate) fn the_loop_goes_on_while_a_child_hangs_and_the_child_is_killed() {
        zbus::block_on(async {
            let runtime = SharedRuntime::current().unwrap();
            let tokens = RingTokens::new(&runtime);
            let begun = Instant::now();
            let hanging = tokens.run(|_| {
                std::thread::sleep(Duration::from_secs(60));
                true
            });
            let mut hanging = std::pin::pin!(hanging);
            let mut ticks = 0;
            let result = loop {
                match runtime.timeout(Duration::from_millis(100), hanging.as_mut()).await {
                    Ok(result) => break result,
                    Err(_) => ticks += 1,
                }
            };
            assert!(result.is_err() && ticks > 5, "{result:?} after {ticks} ticks");
            assert!(begun.elapsed() < LIMIT * 2);
            assert_eq!(tokens.run(|out| sys::write_all(out, b"well")).await.as_deref(), Ok(&b"well"[..]));
            // The next child finds it dead, or a later one when the machine is busy.
            let end = Instant::now() + LIMIT;
            while !tokens.killed.borrow().is_empty() && Instant::now() < end {
                assert!(tokens.run(|_| false).await.is_err());
            }
            assert!(tokens.killed.borrow().is_empty(), "it was collected");
        });
    }
}
