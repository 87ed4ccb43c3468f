//! The verbs that ask the helper, over D-Bus (org.pam_pag.Pag1(5)).

mod choose;
mod connection;
mod list;
mod monitor;
mod reply;

use clap::Subcommand;
use pag::config::{self, Dirs, Settings};
use pag::report::User;
use pag::sys;
use pag::types::{Cell, Client, ClientChoice, TokenState};

use self::choose::{Chosen, choose};
use self::connection::{ANSWER, Helper, PATIENCE};
use crate::output::{self, ActionJson, Answer, Error, PagJson, errln, missing_client, of_cell, outln};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List your PAGs; root sees those of all users
    List {
        /// The PAGs of all users; an administrator may
        #[arg(long)]
        all: bool,
        /// Leave no column out, however narrow the terminal is
        #[arg(long)]
        wide: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a PAG, or all of a user; by default the one that you are in
    ///
    /// Exit status 1: you are in none.
    Show {
        /// Its id, the beginning of it, a user, or its name: see `pagctl list`
        pag: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Get new tokens for a PAG; by default for the one that you are in
    ///
    /// Exit status 1: you are in none, or there are no tokens afterwards.
    Renew {
        /// Its id, the beginning of it, a user, or its name: see `pagctl list`
        pag: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Have your services follow a login; by default yours
    ///
    /// The login has a PAG of its own (scope = session). Exit status 1: you are in
    /// none.
    Follow {
        /// Its id, the beginning of it, a user, or its name: see `pagctl list`
        pag: Option<String>,
        /// Take the choice back: the configuration decides again
        #[arg(long)]
        policy: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print what happens to your PAGs, until you interrupt it
    Monitor {
        /// Print JSON, one line for each change
        #[arg(long)]
        json: bool,
    },
}

/// Runs a command of this room.
///
/// # Errors
/// When the helper does not run or refuses.
pub(crate) fn run(verb: &Verb) -> Result<Answer, Error> {
    zbus::block_on(async {
        let helper = Helper::connect().await?;
        match verb {
            Verb::List { all, json, wide } => list::run(&helper, *all, *json, *wide).await,
            Verb::Show { pag, json } => show(&helper, pag.as_deref(), *json).await,
            Verb::Renew { pag, json } => renew(&helper, pag.as_deref(), *json).await,
            Verb::Follow { pag, policy: false, json } => follow(&helper, pag.as_deref(), *json).await,
            Verb::Follow { pag, policy: true, json } => follow_policy(&helper, pag.as_deref(), *json).await,
            Verb::Monitor { json } => monitor::run(&helper, *json).await,
        }
    })
}

/// Discards the tokens of a PAG, or of all PAGs of a user, for one cell or all: `pagctl unlog --pag`.
///
/// # Errors
/// As [`run`].
pub(crate) fn unlog(pag: &str, cell: Option<&Cell>, json: bool) -> Result<Answer, Error> {
    zbus::block_on(async {
        let helper = Helper::connect().await?;
        let name = cell.map(ToString::to_string).unwrap_or_default();
        let mut actions = Vec::new();
        for id in choose(&helper, pag).await?.ids() {
            let doing = format!("discard the tokens of PAG {id}");
            helper.wait(&doing, PATIENCE, helper.manager.unlog(&id, &name)).await?;
            actions.push(done("unlog", id, format!("the tokens{} were discarded", of_cell(cell))));
        }
        if json {
            tell(&helper, actions).await;
        }
        Ok(Answer::AllRight)
    })
}

/// What the helper has counted since its start.
#[derive(Debug)]
pub(crate) struct Statistics {
    /// When it was started, in seconds since the epoch.
    pub(crate) since: u64,
    pub(crate) jobs: Vec<JobCount>,
    /// The user managers that it has found outside of their PAGs: uid and process. One may have ended since.
    pub(crate) outside: Vec<(u32, u32)>,
}

/// The token jobs for one client and cell.
#[derive(Debug)]
pub(crate) struct JobCount {
    pub(crate) client: String,
    pub(crate) cell: String,
    /// All that have ended.
    pub(crate) ended: u64,
    /// Those of them that have failed.
    pub(crate) failed: u64,
}

/// What the helper has counted. None if it does not answer; the bus does not start it for that.
pub(crate) fn statistics() -> Option<Statistics> {
    zbus::block_on(async {
        let helper = Helper::connect().await.ok()?;
        let (since, rows, outside) = helper.statistics().await?;
        let job = |(client, cell, ended, failed)| JobCount { client, cell, ended, failed };
        Some(Statistics { since, jobs: rows.into_iter().map(job).collect(), outside })
    })
}

async fn show(helper: &Helper, word: Option<&str>, json: bool) -> Result<Answer, Error> {
    let (pags, of_user) = match word {
        None => (helper.own_pag().await?.into_iter().collect(), false),
        Some(word) => {
            let chosen = choose(helper, word).await?;
            let of_user = matches!(chosen, Chosen::OfUser(_));
            let mut pags = Vec::new();
            for id in chosen.ids() {
                pags.push(helper.pag(&id).await?);
            }
            (pags, of_user)
        }
    };
    match pags.first() {
        _ if json && of_user => output::json(&pags),
        first if json => output::json(&first),
        None => outln!("You are in no PAG."),
        Some(_) => outln!("{}", pags.iter().map(|pag| pag.lines().join("\n")).collect::<Vec<_>>().join("\n\n")),
    }
    Ok(if pags.is_empty() { Answer::ToDo } else { Answer::AllRight })
}

/// Something that was done to a PAG.
fn done(action: &'static str, id: String, what: String) -> ActionJson {
    ActionJson::new(action, Some(id), true, what)
}

/// Prints what was done as JSON, with the users.
async fn tell(helper: &Helper, mut actions: Vec<ActionJson>) {
    for action in &mut actions {
        let pag = match &action.pag {
            Some(id) if action.uid.is_none() => helper.pag(id).await.ok(),
            _ => None,
        };
        if let Some(pag) = pag {
            (action.uid, action.user) = (Some(pag.uid), pag.user);
        }
    }
    output::json(&actions);
}

/// Reports that the caller is in no PAG to which something could be done.
fn nowhere(action: &'static str, json: bool) -> Answer {
    let what = "You are in no PAG.";
    if json {
        output::json(&[ActionJson::new(action, None, false, what.to_owned())]);
    } else {
        outln!("{what}");
    }
    Answer::ToDo
}

async fn renew(helper: &Helper, word: Option<&str>, json: bool) -> Result<Answer, Error> {
    let Some(chosen) = chosen_or_own(helper, word).await? else { return Ok(nowhere("renew", json)) };
    // One PAG without a ticket does not keep the user's others from theirs.
    let mut result = Ok(Answer::AllRight);
    let mut actions = Vec::new();
    for id in chosen.ids() {
        let renewed = helper.wait(&format!("renew the tokens of PAG {id}"), PATIENCE, helper.manager.renew(&id)).await;
        let action = match renewed {
            Ok(()) => after_renewal(helper, &id).await,
            Err(error) => Err(error),
        };
        match action {
            Ok(action) => {
                if !action.done && result.is_ok() {
                    result = Ok(Answer::ToDo);
                }
                if !action.done && !json {
                    outln!("{}", action.what);
                }
                actions.push(action);
            }
            Err(error) => {
                actions.push(ActionJson::new("renew", Some(id), false, error.to_string()));
                if let Err(before) = std::mem::replace(&mut result, Err(error)) {
                    errln!("pagctl: {before}");
                }
            }
        }
    }
    if json {
        tell(helper, actions).await;
    }
    result
}

/// What a renewal without an error has brought: a good token, or else the reason. There may have been none to get.
async fn after_renewal(helper: &Helper, id: &str) -> Result<ActionJson, Error> {
    let pag = helper.pag(id).await?;
    let has_tokens = pag.tokens.iter().flatten().any(|token| token.state == TokenState::Good.as_str());
    let what = if has_tokens { "its tokens were renewed".to_owned() } else { no_tokens(&pag) };
    Ok(ActionJson { tokens: pag.tokens, done: has_tokens, ..done("renew", pag.pag, what).of(pag.uid) })
}

/// Why a PAG has no tokens after a renewal.
fn no_tokens(pag: &PagJson) -> String {
    let (settings, _) = config::host(&Dirs::default());
    let why = missing_client(&settings).unwrap_or_else(|| match settings {
        Settings { client: ClientChoice::None, .. } => "pag.conf(5) has 'client = none'".to_owned(),
        Settings { notokens: true, .. } => "pag.conf(5) has 'notokens'".to_owned(),
        _ if Client::present(&settings).is_empty() => "this host has no AFS client".to_owned(),
        _ => "its seeder has brought none; see 'pagctl log'".to_owned(),
    });
    format!("PAG {} of {} has no tokens: {why}.", pag.pag, User(pag.uid))
}

async fn follow(helper: &Helper, word: Option<&str>, json: bool) -> Result<Answer, Error> {
    let Some(chosen) = chosen_or_own(helper, word).await? else { return Ok(nowhere("follow", json)) };
    let id = chosen.only(word.unwrap_or_default())?;
    helper.wait(&format!("have services follow PAG {id}"), PATIENCE, helper.manager.follow(&id)).await?;
    if json {
        tell(helper, vec![done("follow", id, "the user's services follow it".to_owned())]).await;
    }
    Ok(Answer::AllRight)
}

/// Takes the choice of a PAG back: of this one, or of whichever the caller has chosen.
async fn follow_policy(helper: &Helper, word: Option<&str>, json: bool) -> Result<Answer, Error> {
    let doing = "have services follow the PAG that the configuration names";
    let ids = match word {
        Some(word) => choose(helper, word).await?.ids(),
        None => {
            let [uid, ..] = sys::ids().uid;
            let rows = helper.wait(doing, ANSWER, helper.manager.list_pags()).await?;
            let chosen = rows.into_iter().filter(|(_, owner, .., chosen, _)| *owner == uid && *chosen);
            chosen.map(|(id, ..)| id).collect()
        }
    };
    let mut actions = Vec::new();
    for id in ids {
        helper.wait(doing, PATIENCE, helper.manager.unfollow(&id)).await?;
        actions.push(done("follow", id, "the configuration selects the PAG that services follow".to_owned()));
    }
    if json {
        tell(helper, actions).await;
    }
    Ok(Answer::AllRight)
}

/// The PAGs that `word` means, or else the caller's own PAG, if there is one.
async fn chosen_or_own(helper: &Helper, word: Option<&str>) -> Result<Option<Chosen>, Error> {
    if let Some(word) = word {
        return choose(helper, word).await.map(Some);
    }
    Ok(helper.own_pag().await?.map(|own| Chosen::One(own.pag)))
}
