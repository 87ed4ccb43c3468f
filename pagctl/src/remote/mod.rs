//! The verbs that ask the helper, over D-Bus (org.pam_pag.Pag1(5)).

mod connection;
mod monitor;
mod reply;

use clap::Subcommand;
use pag::sys;
use pag::types::Cell;

use self::connection::{ANSWER, Helper, PATIENCE, checked};
use self::reply::ListedPag;
use crate::output::{self, Answer, Error, out, outln, table};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List your PAGs; root sees those of all users
    List {
        /// The PAGs of all users; you may have to prove that you are an administrator
        #[arg(long)]
        all: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a PAG, by default the one that you are in. Exit status 1: you are in none
    Show {
        /// Its id; `pagctl list` shows the ids
        pag: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Get new tokens for a PAG, by default the one that you are in. Exit status 1: you are in none
    Renew {
        /// Its id; `pagctl list` shows the ids
        pag: Option<String>,
    },
    /// Have your services follow the PAG of a login (scope = session), by default the one that you are in. Exit status 1:
    /// you are in none
    Follow {
        /// Its id; `pagctl list` shows the ids
        pag: Option<String>,
        /// Take the choice of that PAG back, or of whichever PAG you chose: the configuration decides again
        #[arg(long)]
        policy: bool,
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
            Verb::List { all, json } => list(&helper, *all, *json).await,
            Verb::Show { pag, json } => show(&helper, pag.as_deref(), *json).await,
            Verb::Renew { pag } => renew(&helper, pag.as_deref()).await,
            Verb::Follow { pag, policy: false } => follow(&helper, pag.as_deref()).await,
            Verb::Follow { pag, policy: true } => follow_policy(&helper, pag.as_deref()).await,
            Verb::Monitor { json } => monitor::run(&helper, *json).await,
        }
    })
}

/// Discards the tokens of a PAG, for one cell or all: `pagctl unlog --pag`.
///
/// # Errors
/// As [`run`].
pub(crate) fn unlog(pag: &str, cell: Option<&Cell>) -> Result<Answer, Error> {
    zbus::block_on(async {
        let id = checked(pag)?;
        let helper = Helper::connect().await?;
        let name = cell.map(ToString::to_string).unwrap_or_default();
        let doing = format!("discard the tokens of PAG {id}");
        helper.wait(&doing, PATIENCE, helper.manager.unlog(&id, &name)).await?;
        Ok(Answer::AllRight)
    })
}

async fn list(helper: &Helper, all: bool, json: bool) -> Result<Answer, Error> {
    let rows = if all {
        helper.wait("list the PAGs of all users", PATIENCE, helper.manager.list_all_pags()).await?
    } else {
        helper.wait("list PAGs", ANSWER, helper.manager.list_pags()).await?
    };
    let pags: Vec<ListedPag> = rows.into_iter().map(ListedPag::from).collect();
    if json {
        output::json(&pags);
    } else if pags.is_empty() {
        outln!("There are no PAGs that you may see.");
    } else {
        let head = ["PAG", "USER", "KIND", "FOLLOWS", "PRINCIPAL"].map(str::to_owned);
        let rows: Vec<[String; 5]> = std::iter::once(head).chain(pags.into_iter().map(row)).collect();
        out!("{}", table("", &rows));
    }
    Ok(Answer::AllRight)
}

fn row(ListedPag { pag, uid, user, kind, principal, follows, chosen }: ListedPag) -> [String; 5] {
    let follows = follows.unwrap_or_else(|| if chosen { "(chosen)" } else { "-" }.to_owned());
    [pag, user.unwrap_or_else(|| uid.to_string()), kind, follows, principal.unwrap_or_else(|| "-".to_owned())]
}

async fn show(helper: &Helper, id: Option<&str>, json: bool) -> Result<Answer, Error> {
    let pag = match id {
        Some(id) => Some(helper.pag(id).await?),
        None => helper.own_pag().await?,
    };
    match &pag {
        _ if json => output::json(&pag),
        Some(pag) => outln!("{}", pag.lines().join("\n")),
        None => outln!("You are in no PAG."),
    }
    Ok(if pag.is_some() { Answer::AllRight } else { Answer::ToDo })
}

async fn renew(helper: &Helper, id: Option<&str>) -> Result<Answer, Error> {
    let Some(id) = named_or_own(helper, id).await? else { return Ok(Answer::ToDo) };
    helper.wait(&format!("renew the tokens of PAG {id}"), PATIENCE, helper.manager.renew(&id)).await?;
    Ok(Answer::AllRight)
}

async fn follow(helper: &Helper, id: Option<&str>) -> Result<Answer, Error> {
    let Some(id) = named_or_own(helper, id).await? else { return Ok(Answer::ToDo) };
    helper.wait(&format!("have services follow PAG {id}"), PATIENCE, helper.manager.follow(&id)).await?;
    Ok(Answer::AllRight)
}

/// Takes the choice of a PAG back: of this one, or of whichever the caller has chosen.
async fn follow_policy(helper: &Helper, id: Option<&str>) -> Result<Answer, Error> {
    let doing = "have services follow the PAG that the configuration names";
    let ids = match id {
        Some(id) => vec![checked(id)?],
        None => {
            let [uid, ..] = sys::ids().uid;
            let rows = helper.wait(doing, ANSWER, helper.manager.list_pags()).await?;
            let chosen = rows.into_iter().filter(|(_, owner, .., chosen, _)| *owner == uid && *chosen);
            chosen.map(|(id, ..)| id).collect()
        }
    };
    for id in ids {
        helper.wait(doing, PATIENCE, helper.manager.unfollow(&id)).await?;
    }
    Ok(Answer::AllRight)
}

/// The id that was given, else that of the caller's own PAG. That the caller is in none is printed.
async fn named_or_own(helper: &Helper, id: Option<&str>) -> Result<Option<String>, Error> {
    if let Some(id) = id {
        return checked(id).map(Some);
    }
    let own = helper.own_pag().await?;
    if own.is_none() {
        outln!("You are in no PAG.");
    }
    Ok(own.map(|own| own.pag))
}
