//! What a caller asks for: a message becomes a request that can be carried out, or a refusal that says what is wrong.

use pag::types::{Cell, PagId, without_codes};
use zbus::DynamicType;
use zbus::message::{Flags, Message};

use super::describe::{self, DbusObject, InterfaceTable, MANAGER, OBJECT_MANAGER, PROPERTIES, Property};

/// Longest message that is read. No call needs a quarter of it, and calls that wait are kept in memory.
const LONGEST: usize = 4096;

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Ping,
    MachineId,
    Introspect(DbusObject),
    ManagedObjects,
    Get(DbusObject, &'static Property),
    GetAll(DbusObject, &'static InterfaceTable),
    ListPags,
    ListAllPags,
    GetPag(PagId),
    GetMyPag,
    Renew(PagId),
    /// For one cell, or for all.
    Unlog(PagId, Option<Cell>),
    /// Begin or end to follow.
    Follow(PagId, bool),
    /// What the helper counts.
    Statistics,
    Subscribe,
    Unsubscribe,
}

/// A call that waits for its answer.
#[derive(Debug)]
pub(crate) struct Call(Message);

impl Call {
    /// Takes a method call.
    pub(crate) fn new(message: Message) -> Self {
        Call(message)
    }

    /// A refusal, if it is too long to be kept until it is served.
    pub(crate) fn too_long(&self) -> Option<Refusal> {
        let length = self.0.data().len();
        (length > LONGEST).then(|| Refusal::bad_arguments(format!("no call here takes more than {LONGEST} bytes")))
    }

    /// What is asked for.
    ///
    /// # Errors
    /// When there is no such object or method, or the arguments are wrong.
    pub(crate) fn request(&self) -> Result<Request, Refusal> {
        read(&self.0)
    }

    /// The connection that asks.
    pub(crate) fn sender(&self) -> Option<String> {
        self.0.header().sender().map(ToString::to_string)
    }

    fn has(&self, flag: Flags) -> bool {
        self.0.primary_header().flags().contains(flag)
    }

    /// Whether the caller waits for an answer.
    pub(crate) fn wants_answer(&self) -> bool {
        !self.has(Flags::NO_REPLY_EXPECTED)
    }

    /// Whether the caller lets polkit ask the user for a password meanwhile.
    pub(crate) fn is_interactive(&self) -> bool {
        self.has(Flags::ALLOW_INTERACTIVE_AUTH)
    }

    /// The answer with this body.
    ///
    /// # Errors
    /// When the body is too long for a message.
    pub(crate) fn answer<B: serde::Serialize + DynamicType>(&self, body: &B) -> zbus::Result<Message> {
        Message::method_return(&self.0.header()).build(body)
    }

    /// The answer with this error.
    ///
    /// # Errors
    /// None for the error names that are used here.
    pub(crate) fn refuse(&self, refusal: &Refusal) -> zbus::Result<Message> {
        Message::error(&self.0.header(), refusal.name).build(&refusal.text)
    }
}

/// Why a call is not carried out: a D-Bus error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    name: &'static str,
    text: String,
}

/// Writes, for each error name, the function that makes such refusals.
macro_rules! refusals {
    ($($(#[$doc:meta])* $function:ident = $name:literal;)*) => {
        impl Refusal {
            $($(#[$doc])* pub(crate) fn $function(text: impl Into<String>) -> Self {
                Refusal { name: $name, text: without_codes(&text.into()) }
            })*
        }
    };
}

refusals! {
    /// The arguments do not have the types or the form that the method takes.
    bad_arguments = "org.freedesktop.DBus.Error.InvalidArgs";
    no_object = "org.freedesktop.DBus.Error.UnknownObject";
    no_interface = "org.freedesktop.DBus.Error.UnknownInterface";
    no_method = "org.freedesktop.DBus.Error.UnknownMethod";
    no_property = "org.freedesktop.DBus.Error.UnknownProperty";
    read_only = "org.freedesktop.DBus.Error.PropertyReadOnly";
    /// The caller has too many calls or subscriptions here already.
    too_many = "org.freedesktop.DBus.Error.LimitsExceeded";
    denied = "org.freedesktop.DBus.Error.AccessDenied";
    /// Polkit would have to ask the user for a password, and the caller did not allow that.
    must_ask = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired";
    timed_out = "org.freedesktop.DBus.Error.TimedOut";
    failed = "org.freedesktop.DBus.Error.Failed";
    not_in_pag = "org.pam_pag.Pag1.Error.NotInPag";
    not_renewed = "org.pam_pag.Pag1.Error.RenewFailed";
    not_discarded = "org.pam_pag.Pag1.Error.UnlogFailed";
    not_followed = "org.pam_pag.Pag1.Error.FollowFailed";
}

impl Refusal {
    /// There is no such PAG, or the caller may not see it: the words are the same for both.
    pub(crate) fn no_pag(id: PagId) -> Self {
        Refusal { name: "org.pam_pag.Pag1.Error.NoSuchPag", text: format!("there is no PAG {id} that you may see") }
    }

    /// The same for its object.
    pub(crate) fn no_pag_object(id: PagId) -> Self {
        Refusal::no_object(format!("there is no object {} that you may see", describe::path_of(id)))
    }

    /// The caller has [`OUTSTANDING`](super::queue::OUTSTANDING) calls here.
    pub(crate) fn outstanding() -> Self {
        Refusal::too_many(format!("you have {} calls here that are not answered yet", super::queue::OUTSTANDING))
    }
}

impl From<zbus::Error> for Refusal {
    fn from(error: zbus::Error) -> Self {
        Refusal::failed(error.to_string())
    }
}

impl From<zbus::fdo::Error> for Refusal {
    fn from(error: zbus::fdo::Error) -> Self {
        Refusal::failed(error.to_string())
    }
}

/// Reads a message. Whether its PAG exists is not looked at here, since not every caller may know that.
fn read(message: &Message) -> Result<Request, Refusal> {
    let header = message.header();
    let path = header.path().map_or("", |path| path.as_str());
    let member = header.member().map_or("", |member| member.as_str());
    let wanted = header.interface().map(|interface| interface.as_str());
    let object = DbusObject::parse(path).ok_or_else(|| Refusal::no_object(format!("there is no object {path}")))?;
    let no_method = || Refusal::no_method(format!("{path} has no method {member}"));
    let mut interfaces = object.interfaces().iter();
    let interface = match wanted {
        Some(wanted) => interfaces
            .find(|interface| interface.name == wanted)
            .ok_or_else(|| Refusal::no_interface(format!("{path} has no interface {wanted}")))?,
        // A caller need not name it (D-Bus specification, "Method Calls").
        None => interfaces.find(|interface| interface.method(member).is_some()).ok_or_else(no_method)?,
    };
    let method = interface.method(member).ok_or_else(no_method)?;
    let (given, taken) = (header.signature().to_string_no_parens(), method.signature());
    if given != taken {
        return Err(Refusal::bad_arguments(format!("{member} takes '{taken}', not '{given}'")));
    }
    match (interface.name, member) {
        (MANAGER, _) => manager(message, member).unwrap_or_else(|| Err(no_method())),
        (OBJECT_MANAGER, _) => Ok(Request::ManagedObjects),
        (PROPERTIES, _) => properties(message, member, object),
        (_, "Introspect") => Ok(Request::Introspect(object)),
        (_, "Ping") => Ok(Request::Ping),
        (_, "GetMachineId") => Ok(Request::MachineId),
        _ => Err(no_method()),
    }
}

fn manager(message: &Message, member: &str) -> Option<Result<Request, Refusal>> {
    let body = message.body();
    let id = |text: &str| {
        PagId::parse(text)
            .ok_or_else(|| Refusal::bad_arguments("the id of a PAG has 16 hex digits, such as 5f2e91c07ab3d846"))
    };
    let only_id = || body.deserialize::<&str>().map_err(Refusal::from).and_then(id);
    Some(match member {
        "ListPags" => Ok(Request::ListPags),
        "ListAllPags" => Ok(Request::ListAllPags),
        "GetPag" => only_id().map(Request::GetPag),
        "GetMyPag" => Ok(Request::GetMyPag),
        "Renew" => only_id().map(Request::Renew),
        "Follow" => only_id().map(|id| Request::Follow(id, true)),
        "Unfollow" => only_id().map(|id| Request::Follow(id, false)),
        "Unlog" => body.deserialize::<(&str, &str)>().map_err(Refusal::from).and_then(|(text, cell)| {
            let cell = match cell {
                "" => None,
                cell => Some(cell.parse().map_err(|what| Refusal::bad_arguments(format!("a cell is {what}")))?),
            };
            Ok(Request::Unlog(id(text)?, cell))
        }),
        "GetStatistics" => Ok(Request::Statistics),
        "Subscribe" => Ok(Request::Subscribe),
        "Unsubscribe" => Ok(Request::Unsubscribe),
        _ => return None,
    })
}

fn properties(message: &Message, member: &str, object: DbusObject) -> Result<Request, Refusal> {
    let body = message.body();
    let interface = |name: &str| {
        let found = object.interfaces().iter().find(|interface| interface.name == name);
        found.copied().ok_or_else(|| Refusal::no_interface(format!("this object has no interface {name}")))
    };
    if member == "GetAll" {
        return Ok(Request::GetAll(object, interface(body.deserialize()?)?));
    }
    let (name, property) = if member == "Get" {
        body.deserialize::<(&str, &str)>()?
    } else {
        let (name, property, _) = body.deserialize::<(&str, &str, zbus::Variant<'_>)>()?;
        (name, property)
    };
    let found = interface(name)?
        .property(property)
        .ok_or_else(|| Refusal::no_property(format!("{name} has no property {property}")))?;
    if member == "Get" {
        Ok(Request::Get(object, found))
    } else {
        Err(Refusal::read_only(format!("{property} can be read only")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dbus::describe::{OF_MANAGER, OF_PAG, PAG, path_of};
    use proptest::prelude::*;

    fn call<B: serde::Serialize + DynamicType>(path: &str, interface: &str, member: &str, body: &B) -> Message {
        Message::method_call(path.to_owned(), member.to_owned())
            .interface(interface.to_owned())
            .sender(":1.7")
            .build(body)
            .unwrap()
    }

    fn name(refused: Result<Request, Refusal>) -> &'static str {
        refused.unwrap_err().name.rsplit('.').next().unwrap()
    }

    const HOST: &str = "/org/pam_pag/Pag1";
    const ID: &str = "00000000000000ff";

    #[test]
    fn every_method_is_understood() {
        let id = PagId::from(255);
        let table: [(&str, Message, Request); 11] = [
            ("ListPags", call(HOST, MANAGER, "ListPags", &()), Request::ListPags),
            ("ListAllPags", call(HOST, MANAGER, "ListAllPags", &()), Request::ListAllPags),
            ("GetPag", call(HOST, MANAGER, "GetPag", &ID), Request::GetPag(id)),
            ("GetMyPag", call(HOST, MANAGER, "GetMyPag", &()), Request::GetMyPag),
            ("Renew", call(HOST, MANAGER, "Renew", &ID), Request::Renew(id)),
            ("Unlog", call(HOST, MANAGER, "Unlog", &(ID, "")), Request::Unlog(id, None)),
            ("Follow", call(HOST, MANAGER, "Follow", &ID), Request::Follow(id, true)),
            ("Unfollow", call(HOST, MANAGER, "Unfollow", &ID), Request::Follow(id, false)),
            ("GetStatistics", call(HOST, MANAGER, "GetStatistics", &()), Request::Statistics),
            ("Subscribe", call(HOST, MANAGER, "Subscribe", &()), Request::Subscribe),
            ("Unsubscribe", call(HOST, MANAGER, "Unsubscribe", &()), Request::Unsubscribe),
        ];
        for (member, message, request) in table {
            assert!(OF_MANAGER.method(member).is_some());
            assert_eq!(read(&message), Ok(request));
        }
        let cell = read(&call(HOST, MANAGER, "Unlog", &(ID, "example.test")));
        assert_eq!(cell, Ok(Request::Unlog(id, Some("example.test".parse().unwrap()))));
        assert_eq!(read(&call(HOST, OBJECT_MANAGER, "GetManagedObjects", &())), Ok(Request::ManagedObjects));
        let pag = path_of(id);
        let all = read(&call(&pag, PROPERTIES, "GetAll", &PAG)).unwrap();
        assert!(matches!(all, Request::GetAll(DbusObject::Pag(one), interface) if one == id && interface.name == PAG));
        let tokens = read(&call(&pag, PROPERTIES, "Get", &(PAG, "Tokens"))).unwrap();
        assert_eq!(tokens, Request::Get(DbusObject::Pag(id), OF_PAG.property("Tokens").unwrap()));
        let without = Message::method_call(HOST, "ListPags").build(&()).unwrap();
        assert_eq!(read(&without), Ok(Request::ListPags), "the interface need not be named");
    }

    #[test]
    fn what_is_wrong_has_a_name() {
        for (message, error) in [
            (call(HOST, MANAGER, "Renew", &()), "InvalidArgs"),
            (call(HOST, MANAGER, "Renew", &(ID, ID)), "InvalidArgs"),
            (call(HOST, MANAGER, "Renew", &7_u32), "InvalidArgs"),
            (call(HOST, MANAGER, "Renew", &""), "InvalidArgs"),
            (call(HOST, MANAGER, "GetPag", &"+0000000000000ff"), "InvalidArgs"),
            (call(HOST, MANAGER, "GetPag", &"00000000000000ff/.."), "InvalidArgs"),
            (call(HOST, MANAGER, "Unlog", &(ID, "a b")), "InvalidArgs"),
            (call(HOST, MANAGER, "Unlog", &(ID, "x".repeat(65))), "InvalidArgs"),
            (call(HOST, MANAGER, "Ping", &()), "UnknownMethod"),
            (call(HOST, "org.example.Other", "ListPags", &()), "UnknownInterface"),
            (call("/org/example", MANAGER, "ListPags", &()), "UnknownObject"),
            (call(&path_of(PagId::from(1)), MANAGER, "ListPags", &()), "UnknownInterface"),
            (call(HOST, PROPERTIES, "Get", &(PAG, "Id")), "UnknownInterface"),
            (call(HOST, PROPERTIES, "Get", &(MANAGER, "Id")), "UnknownProperty"),
            (call(HOST, PROPERTIES, "Set", &(MANAGER, "Version", zbus::Variant::from("9"))), "PropertyReadOnly"),
            (Message::method_call(HOST, "Nothing").build(&()).unwrap(), "UnknownMethod"),
        ] {
            assert_eq!(name(read(&message)), error, "{message:?}");
        }
    }

    proptest! {
        #[test]
        fn no_words_make_the_reader_panic(
            path in "(/[a-z0-9_]{1,18}){1,5}",
            member in "[A-Za-z]{1,12}",
            arguments in (".{0,40}", ".{0,40}"),
            known in 0..3_usize,
        ) {
            // Most free choices name nothing that there is, so some of them name a method and choose its arguments only.
            let (path, member) = match known {
                0 => (path, member),
                1 => (HOST.to_owned(), "Unlog".to_owned()),
                _ => (path_of(PagId::from(1)), "Get".to_owned()),
            };
            let interface = if known == 2 { PROPERTIES } else { MANAGER };
            if let Ok(message) = Message::method_call(path, member).interface(interface).build(&arguments) {
                let call = Call::new(message);
                if let Err(refusal) = call.request() {
                    prop_assert!(call.refuse(&refusal).is_ok());
                }
            }
        }
    }

    #[test]
    fn every_refusal_can_be_sent() {
        let made = Call::new(call(HOST, MANAGER, "ListPags", &()));
        for refusal in [
            Refusal::bad_arguments(""),
            Refusal::no_object(""),
            Refusal::no_interface(""),
            Refusal::no_method(""),
            Refusal::no_property(""),
            Refusal::read_only(""),
            Refusal::outstanding(),
            Refusal::denied(""),
            Refusal::must_ask(""),
            Refusal::timed_out(""),
            Refusal::failed(""),
            Refusal::not_in_pag(""),
            Refusal::not_renewed(""),
            Refusal::not_discarded(""),
            Refusal::not_followed(""),
            Refusal::no_pag(PagId::from(1)),
            Refusal::no_pag_object(PagId::from(1)),
        ] {
            assert!(made.refuse(&refusal).is_ok(), "{refusal:?}");
        }
        assert_eq!(made.sender().as_deref(), Some(":1.7"));
        assert_eq!(made.too_long(), None);
        let long = Call::new(call(HOST, MANAGER, "Unlog", &(ID, "x".repeat(5000))));
        assert!(long.too_long().is_some());
    }
}
