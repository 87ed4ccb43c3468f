//! `cargo xtask demo`: the main job on a real login, in two acts.

use pag_tests::scenarios::tier3::Client;

use crate::machine::{self, Run};
use crate::shell::{MACHINES, Profile, need_packages, top};
use crate::{image, roots, tiers, vm};

/// Shows both acts. True if both went well.
pub(crate) fn run() -> bool {
    need_packages(&[]);
    println!("A Debian machine with systemd, sshd and a Kerberos KDC is booted twice: without pam_pag, and with it.");
    println!("Alice logs in over ssh with her password; then systemd starts a service for her.\n");
    let programs = machine::programs();
    let product = tiers::product(&top(), Profile::Release);
    let suite = roots::SUITES[0];
    let mut well = true;
    for (title, scenario, product) in
        [("Act 1, without pam_pag", "demo_without", None), ("Act 2, with pam_pag", "demo_with", Some(&*product))]
    {
        let run =
            Run { suite, scenario, product, packages: &[], programs: &programs, linger: &[], boots: 1, long: false };
        let outcome = machine::run(&run);
        println!("{title} ({:.1} s)\n{}", outcome.took.as_secs_f64(), outcome.output);
        well &= outcome.passed;
    }
    let end = "The service is in the login's PAG: the same ring, and the token that the login got.";
    println!("{}", if well { end } else { "Something went wrong: see above." });
    well
}

/// Shows both acts on a real cell. True if both went well.
pub(crate) fn afs() -> bool {
    need_packages(&MACHINES);
    println!(
        "A virtual machine with an AFS cell, a KDC and OpenAFS's client is resumed twice: without pam_pag, and with"
    );
    println!(
        "it. Alice's home is in AFS, and she alone can read it. She logs in over ssh with her password; then systemd"
    );
    println!("starts a service for her.\n");
    let programs = machine::programs();
    let product = tiers::product(&top(), Profile::Release);
    let suite = image::SUITES[0];
    let mut well = true;
    for (title, scenario, product) in [
        ("Act 1, with today's pam_krb5 and pam_afs_session", "demo_afs_without", None),
        ("Act 2, with pam_krb5 and pam_pag", "demo_afs_with", Some(&*product)),
    ] {
        let client = Client::OpenAfs;
        let command = &vm::scenario(scenario, client);
        let outcome = vm::run(&vm::Run { suite, client, command, product, programs: &programs, long: false });
        println!("{title} ({:.1} s)\n{}", outcome.took.as_secs_f64(), outcome.output);
        well &= outcome.passed;
    }
    let end = "The service is in the login's PAG, and reads the home as the login does.";
    println!("{}", if well { end } else { "Something went wrong: see above." });
    well
}
