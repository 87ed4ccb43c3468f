//! `pagctl doctor` on a machine on which much does not answer.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::sandbox::{Sandbox, SilentNames, pagctl};

pub(super) fn doctor_waits_for_no_answer(_: &mut Sandbox) {
    // A KDC that takes each request and never answers, by UDP and by TCP.
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let _udp = UdpSocket::bind(address).unwrap();
    let text =
        format!("[libdefaults]\ndefault_realm = EXAMPLE.TEST\n[realms]\nEXAMPLE.TEST = {{\nkdc = {address}\n}}\n");
    fs::write("/etc/krb5.conf", text).unwrap();
    let names = SilentNames::begin();
    let doctor = |arguments: &[&str]| {
        let mut command = Command::new("timeout");
        command.arg("40").arg(pagctl()).arg("doctor").args(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let (all, one) = (doctor(&["--json"]), doctor(&["--user", "alice"]));
    let (all, one) = (all.wait_with_output().unwrap(), one.wait_with_output().unwrap());
    for output in [&all, &one] {
        assert_ne!(output.status.code(), Some(124), "the doctor ends by itself");
    }
    let found: Value = serde_json::from_slice(&all.stdout).unwrap_or_else(|error| panic!("{error}: {all:?}"));
    crate::schema::check("doctor", &found);
    let findings = found["findings"].as_array().unwrap();
    let is_told = findings.iter().any(|finding| finding["id"] == "kdc-unreachable");
    assert!(is_told && all.status.code() == Some(2), "a KDC that is silent counts as none: {found:#}");
    // The name of a user is looked up before all else.
    let words = String::from_utf8_lossy(&one.stderr).into_owned();
    assert!(words.contains("the name service does not answer who alice is"), "who is silent is named: {words}");
    assert_eq!(one.status.code(), Some(2), "{words}");
    drop(names);
}
