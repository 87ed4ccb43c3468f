//! Named PAGs: `pagctl keep NAME`, the program of `pag@NAME.service`, makes one, renews its tokens and ends it, and
//! `pagctl run --name NAME` enters it.

use std::path::Path;
use std::time::{Duration, Instant};

use pag::afs;
use pag::config::{self, Dirs, Settings};
use pag::named::{self, NamedPag};
use pag::report::{Event, Until, report, speak_as};
use pag::store::ring::{Ring, RingFault};
use pag::sys::{self, Signals, Told};
use pag::types::{Client, Principal, TokenState};
use sd_notify::NotifyState;

use super::keeper::{Keeper, LONGEST_SLEEP, names};
use super::ticket::{PAUSES, Source, Ticket, first_end};
use crate::output::{Answer, Error};

/// Longest time for reading the tokens of the ring.
const TOKENS: Duration = Duration::from_secs(2);

/// Makes the PAG of `[pag NAME]`, or takes over the one that a killed keeper has left. Renews its tokens until this
/// process is told to stop, and ends it then.
///
/// # Errors
/// When there is no such section, the PAG cannot be made, or a member breaks it. What is left of it is found again.
pub(super) fn keep(name: &str) -> Result<Answer, Error> {
    let settings = settings(name)?;
    Client::configure(&settings);
    speak_as("pagctl");
    let signals = Signals::block();
    let source = source(name, &settings)?;
    let principal = settings.principal.as_deref().and_then(|principal| Principal::parse(principal).ok());
    let ticket = Ticket::new(source, settings, &[]);
    let pag = named::find_or_make(name, principal)?;
    tell(&[NotifyState::Status(&format!("gets the first tokens of PAG {} ({name})", pag.id))]);
    let kept = match first_tokens(ticket, &pag, name, &signals) {
        Some(keeper) => renew(keeper, &pag, name, &signals),
        None => Ok(()),
    };
    tell(&[NotifyState::Stopping]);
    kept?;
    named::end(name)?;
    Ok(Answer::AllRight)
}

/// Enters the PAG of this name. False if the configuration has none, and there is none.
///
/// # Errors
/// When it is configured and there is none, or it has no tokens.
pub(super) fn enter(name: &str) -> Result<bool, Error> {
    let unit = format!("pag@{name}.service");
    let Some(pag) = named::find(name)? else {
        return match config::named_pag(&Dirs::default(), name) {
            None => Ok(false),
            Some(_) => Err(Error::Refused(format!(
                "there is no PAG {name}: {unit} makes it; start that with `systemctl start {unit}`, or name it in \
                 Requires= and After= of this unit"
            ))),
        };
    };
    if !has_tokens(&pag) {
        return Err(Error::Refused(format!("PAG {name} has no tokens: see `systemctl status {unit}`")));
    }
    pag.enter()?;
    Ok(true)
}

fn has_tokens(pag: &NamedPag) -> bool {
    let tokens = afs::tokens(&pag.ring, Instant::now() + TOKENS).unwrap_or_default();
    tokens.iter().any(|token| token.state == TokenState::Good)
}

fn settings(name: &str) -> Result<Settings, Error> {
    config::named_pag(&Dirs::default(), name).ok_or_else(|| {
        let right = format!("[pag {name}] with keytab = FILE and principal = PRINCIPAL");
        Error::Refused(format!("pag.conf(5) has no section {right}"))
    })
}

fn source(name: &str, settings: &Settings) -> Result<Source, Error> {
    let (Some(keytab), Some(principal)) = (&settings.keytab, &settings.principal) else {
        let why = format!("[pag {name}] in pag.conf(5) needs both keytab = FILE and principal = PRINCIPAL");
        return Err(Error::Refused(why));
    };
    Source::keytab(Path::new(keytab), principal).map_err(|why| Error::Refused(format!("PAG {name}: {why}")))
}

/// Gets the first tokens, after pauses where need be: the service manager bounds the time. None if this process is told to
/// stop.
fn first_tokens(ticket: Ticket, pag: &NamedPag, name: &str, signals: &Signals) -> Option<Keeper<Ring>> {
    let (mut pause, longest) = PAUSES;
    let mut said = None;
    loop {
        let begun = Instant::now();
        match ticket.fill(&pag.ring) {
            Ok(tokens) => {
                let (client, cell) = names(&tokens);
                let millis = sys::millis(begun.elapsed());
                report(&Event::Seeded { uid: ticket.uid(), ring: Some(pag.ring.serial), client, cell, millis });
                return Some(Keeper::new(ticket, pag.ring, tokens));
            }
            Err(why) if said.as_ref() == Some(&why) => {}
            Err(why) => {
                let what = format!("PAG {name} has no tokens yet, and the next attempt is in a moment: {why}");
                report(&Event::Complaint { what });
                tell(&[NotifyState::Status(&why)]);
                said = Some(why);
            }
        }
        if signals.wait(pause) == Some(Told::Stop) {
            return None;
        }
        pause = (pause * 2).min(longest);
    }
}

/// Renews the tokens until this process is told to stop.
///
/// # Errors
/// When a member has broken the ring.
fn renew(mut keeper: Keeper<Ring>, pag: &NamedPag, name: &str, signals: &Signals) -> Result<(), Error> {
    note(&keeper, pag);
    tell(&[NotifyState::Ready]);
    loop {
        let now = sys::now();
        let left = Duration::from_secs(keeper.due(now).saturating_sub(now));
        match signals.wait(left.min(LONGEST_SLEEP)) {
            Some(Told::Stop) => return Ok(()),
            None if is_broken(&pag.ring) => {
                return Err(Error::Refused(format!("a member of PAG {name} has broken it; its unit makes a new one")));
            }
            None if sys::now() < keeper.due(sys::now()) => {}
            told => {
                if told.is_some() {
                    keeper.renew_all(sys::now())
                } else {
                    keeper.renew(sys::now())
                }
                note(&keeper, pag);
            }
        }
    }
}

/// Whether the ring is one no more: members can revoke it.
fn is_broken(ring: &Ring) -> bool {
    matches!(Ring::look(ring.serial, 0, ring.group), Err(RingFault::Lost(_)))
}

/// Notes the tokens for those who list the PAG, and tells them to those who look at the unit.
fn note(keeper: &Keeper<Ring>, pag: &NamedPag) {
    if let Err(why) = pag.note(keeper.held()) {
        report(&Event::Complaint { what: why.to_string() });
    }
    let (_, cells) = names(keeper.held());
    let end = first_end(keeper.held()).map_or_else(String::new, |end| format!(" {}", Until(end)));
    let failure = keeper.failure().map_or_else(String::new, |why| format!("; not renewed: {why}"));
    tell(&[NotifyState::Status(&format!("PAG {}: tokens of {cells}{end}{failure}", pag.id))]);
}

fn tell(states: &[NotifyState<'_>]) {
    // Without a service manager it goes nowhere.
    let _ = sd_notify::notify(states);
}
