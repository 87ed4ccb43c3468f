//! The interfaces as tables: calls are checked against them, and introspection data is written from them.

use std::fmt::{self, Write as _};

use pag::types::PagId;

/// The manager's object.
pub(crate) const MANAGER_PATH: &str = "/org/pam_pag/Pag1";
/// The parent of the PAGs' objects.
const PAGS_PATH: &str = "/org/pam_pag/Pag1/pag";

/// The manager's interface.
pub(crate) const MANAGER: &str = "org.pam_pag.Pag1.Manager";
/// A PAG's interface.
pub(crate) const PAG: &str = "org.pam_pag.Pag1.Pag";
/// From the D-Bus specification, as are the next three.
pub(crate) const OBJECT_MANAGER: &str = "org.freedesktop.DBus.ObjectManager";
/// See [`OBJECT_MANAGER`].
pub(crate) const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const INTROSPECTABLE: &str = "org.freedesktop.DBus.Introspectable";
const PEER: &str = "org.freedesktop.DBus.Peer";

/// Name and type of an argument.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Argument(&'static str, &'static str);

/// A method with its arguments.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Method {
    pub(crate) name: &'static str,
    takes: &'static [Argument],
    gives: &'static [Argument],
}

impl Method {
    /// The signature of its arguments.
    pub(crate) fn signature(&self) -> String {
        self.takes.iter().map(|argument| argument.1).collect()
    }
}

/// A signal with its arguments.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Signal {
    name: &'static str,
    args: &'static [Argument],
}

/// A property. None can be written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Property {
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    /// Whether it can change. PropertiesChanged then tells so.
    changes: bool,
}

/// An interface.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InterfaceTable {
    pub(crate) name: &'static str,
    methods: &'static [Method],
    signals: &'static [Signal],
    pub(crate) properties: &'static [Property],
}

impl InterfaceTable {
    /// Its method of that name.
    pub(crate) fn method(&self, name: &str) -> Option<&'static Method> {
        self.methods.iter().find(|method| method.name == name)
    }

    /// Its property of that name.
    pub(crate) fn property(&self, name: &str) -> Option<&'static Property> {
        self.properties.iter().find(|property| property.name == name)
    }
}

const fn method(name: &'static str, takes: &'static [Argument], gives: &'static [Argument]) -> Method {
    Method { name, takes, gives }
}

const fn fixed(name: &'static str, kind: &'static str) -> Property {
    Property { name, kind, changes: false }
}

const fn changing(name: &'static str, kind: &'static str) -> Property {
    Property { name, kind, changes: true }
}

/// The manager's interface.
pub(crate) static OF_MANAGER: InterfaceTable = InterfaceTable {
    name: MANAGER,
    methods: &[
        method("ListPags", &[], &[Argument("pags", "a(susssbo)")]),
        method("ListAllPags", &[], &[Argument("pags", "a(susssbo)")]),
        method("GetPag", &[Argument("id", "s")], &[Argument("pag", "o")]),
        method("GetMyPag", &[], &[Argument("pag", "o")]),
        method("Renew", &[Argument("id", "s")], &[]),
        method("Unlog", &[Argument("id", "s"), Argument("cell", "s")], &[]),
        method("Follow", &[Argument("id", "s")], &[]),
        method("Unfollow", &[Argument("id", "s")], &[]),
        method(
            "GetStatistics",
            &[],
            &[Argument("since", "t"), Argument("jobs", "a(sstt)"), Argument("outside", "a(uu)")],
        ),
        method("Subscribe", &[], &[]),
        method("Unsubscribe", &[], &[]),
    ],
    signals: &[],
    properties: &[fixed("Version", "s")],
};

/// A PAG's interface.
pub(crate) static OF_PAG: InterfaceTable = InterfaceTable {
    name: PAG,
    methods: &[],
    signals: &[
        Signal { name: "Followed", args: &[Argument("id", "s")] },
        Signal { name: "Expiring", args: &[Argument("expires", "t"), Argument("why", "s")] },
        Signal { name: "Expired", args: &[Argument("expired", "t"), Argument("why", "s")] },
    ],
    properties: &[
        fixed("Id", "s"),
        fixed("UID", "u"),
        fixed("Kind", "s"),
        fixed("Made", "t"),
        fixed("RingSerial", "i"),
        changing("Principal", "s"),
        changing("TicketExpires", "t"),
        changing("Retain", "s"),
        changing("Follows", "s"),
        changing("Chosen", "b"),
        changing("Tokens", "a(sssxts)"),
        changing("Leases", "a(usssb)"),
    ],
};

static OF_OBJECT_MANAGER: InterfaceTable = InterfaceTable {
    name: OBJECT_MANAGER,
    methods: &[method("GetManagedObjects", &[], &[Argument("objects", "a{oa{sa{sv}}}")])],
    signals: &[
        Signal { name: "InterfacesAdded", args: &[Argument("object", "o"), Argument("interfaces", "a{sa{sv}}")] },
        Signal { name: "InterfacesRemoved", args: &[Argument("object", "o"), Argument("interfaces", "as")] },
    ],
    properties: &[],
};

static OF_PROPERTIES: InterfaceTable = InterfaceTable {
    name: PROPERTIES,
    methods: &[
        method("Get", &[Argument("interface", "s"), Argument("property", "s")], &[Argument("value", "v")]),
        method("GetAll", &[Argument("interface", "s")], &[Argument("properties", "a{sv}")]),
        method("Set", &[Argument("interface", "s"), Argument("property", "s"), Argument("value", "v")], &[]),
    ],
    signals: &[Signal {
        name: "PropertiesChanged",
        args: &[Argument("interface", "s"), Argument("changed", "a{sv}"), Argument("invalidated", "as")],
    }],
    properties: &[],
};

static OF_INTROSPECTABLE: InterfaceTable = InterfaceTable {
    name: INTROSPECTABLE,
    methods: &[method("Introspect", &[], &[Argument("xml", "s")])],
    signals: &[],
    properties: &[],
};

static OF_PEER: InterfaceTable = InterfaceTable {
    name: PEER,
    methods: &[method("Ping", &[], &[]), method("GetMachineId", &[], &[Argument("id", "s")])],
    signals: &[],
    properties: &[],
};

/// An object, by its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DbusObject {
    /// One that only leads to its child of this name.
    Above(&'static str),
    /// The manager.
    Manager,
    /// The parent of the PAGs' objects.
    Pags,
    /// A PAG. Whether it exists is not known here.
    Pag(PagId),
}

impl DbusObject {
    /// Reads a path. None if no object here can have it.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        match path {
            "/" => Some(DbusObject::Above("org")),
            "/org" => Some(DbusObject::Above("pam_pag")),
            "/org/pam_pag" => Some(DbusObject::Above("Pag1")),
            MANAGER_PATH => Some(DbusObject::Manager),
            PAGS_PATH => Some(DbusObject::Pags),
            // An object has one path only, so upper case is refused.
            _ => {
                let id = PagId::parse(path.strip_prefix(PAGS_PATH)?.strip_prefix('/')?)?;
                (path_of(id) == path).then_some(DbusObject::Pag(id))
            }
        }
    }

    /// The interfaces of such an object.
    pub(crate) fn interfaces(self) -> &'static [&'static InterfaceTable] {
        static AT_MANAGER: [&InterfaceTable; 5] =
            [&OF_MANAGER, &OF_OBJECT_MANAGER, &OF_PROPERTIES, &OF_INTROSPECTABLE, &OF_PEER];
        static AT_PAG: [&InterfaceTable; 4] = [&OF_PAG, &OF_PROPERTIES, &OF_INTROSPECTABLE, &OF_PEER];
        static ELSEWHERE: [&InterfaceTable; 2] = [&OF_INTROSPECTABLE, &OF_PEER];
        match self {
            DbusObject::Manager => &AT_MANAGER,
            DbusObject::Pag(_) => &AT_PAG,
            DbusObject::Above(_) | DbusObject::Pags => &ELSEWHERE,
        }
    }

    /// Its introspection data (D-Bus specification, "Introspection data format"), with the names of what is below it.
    pub(crate) fn introspect(self, pags: &[PagId]) -> String {
        let mut xml = String::from(
            "<!DOCTYPE node PUBLIC \"-//freedesktop//DTD D-BUS Object Introspection 1.0//EN\"\n \
             \"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd\">\n<node>\n",
        );
        // Writing to a String cannot fail.
        for interface in self.interfaces() {
            let _ = write!(xml, "{interface}");
        }
        match self {
            DbusObject::Above(child) => {
                let _ = writeln!(xml, "  <node name=\"{child}\"/>");
            }
            DbusObject::Manager => xml.push_str("  <node name=\"pag\"/>\n"),
            DbusObject::Pags => {
                for id in pags {
                    let _ = writeln!(xml, "  <node name=\"{id}\"/>");
                }
            }
            DbusObject::Pag(_) => {}
        }
        xml.push_str("</node>\n");
        xml
    }
}

/// The path of a PAG's object.
pub(crate) fn path_of(id: PagId) -> String {
    format!("{PAGS_PATH}/{id}")
}

impl fmt::Display for InterfaceTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  <interface name=\"{}\">", self.name)?;
        for method in self.methods {
            let arguments = [(method.takes, " direction=\"in\""), (method.gives, " direction=\"out\"")];
            element(f, "method", method.name, &arguments)?;
        }
        for signal in self.signals {
            element(f, "signal", signal.name, &[(signal.args, "")])?;
        }
        for Property { name, kind, changes } in self.properties {
            write!(f, "    <property name=\"{name}\" type=\"{kind}\" access=\"read\"")?;
            if *changes {
                writeln!(f, "/>")?;
            } else {
                let annotation = "org.freedesktop.DBus.Property.EmitsChangedSignal";
                writeln!(f, ">\n      <annotation name=\"{annotation}\" value=\"const\"/>\n    </property>")?;
            }
        }
        writeln!(f, "  </interface>")
    }
}

fn element(f: &mut fmt::Formatter<'_>, kind: &str, name: &str, arguments: &[(&[Argument], &str)]) -> fmt::Result {
    if arguments.iter().all(|(list, _)| list.is_empty()) {
        return writeln!(f, "    <{kind} name=\"{name}\"/>");
    }
    writeln!(f, "    <{kind} name=\"{name}\">")?;
    for (list, direction) in arguments {
        for Argument(name, kind) in *list {
            writeln!(f, "      <arg name=\"{name}\" type=\"{kind}\"{direction}/>")?;
        }
    }
    writeln!(f, "    </{kind}>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_is_one_object() {
        let id = PagId::from(0xfe);
        assert_eq!(DbusObject::parse(&path_of(id)), Some(DbusObject::Pag(id)));
        for place in ["/", "/org", "/org/pam_pag", "/org/pam_pag/Pag1", "/org/pam_pag/Pag1/pag"] {
            assert!(DbusObject::parse(place).is_some(), "{place}");
        }
        for nothing in [
            "",
            "/org/",
            "/org/pam_pag/Pag1/pag/",
            "/org/pam_pag/Pag1/pag/fe",
            "/org/pam_pag/Pag1/pag/00000000000000FE",
        ] {
            assert_eq!(DbusObject::parse(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn the_page_shows_what_introspection_says() {
        let page = include_str!("../../../docs/man/org.pam_pag.Pag1.5").replace("\\-", "-");
        for interface in [&OF_MANAGER, &OF_OBJECT_MANAGER, &OF_PAG] {
            assert!(page.contains(&interface.to_string()), "the page has another {}:\n{interface}", interface.name);
        }
        let heads: Vec<&str> = page.split(".TP\n").filter_map(|part| part.lines().next()).collect();
        let explains = |word: String| assert!(heads.iter().any(|head| head.contains(&word)), "the page lacks {word}");
        OF_MANAGER.methods.iter().for_each(|method| explains(format!("{}(", method.name)));
        OF_PAG.signals.iter().for_each(|signal| explains(format!(".BI {}(", signal.name)));
        OF_PAG
            .properties
            .iter()
            .for_each(|property| explains(format!(".BR {} \" ({})\"", property.name, property.kind)));
    }

    #[test]
    fn every_type_is_one() {
        for interface in [&OF_MANAGER, &OF_PAG, &OF_OBJECT_MANAGER, &OF_PROPERTIES, &OF_INTROSPECTABLE, &OF_PEER] {
            let arguments = interface.methods.iter().flat_map(|method| method.takes.iter().chain(method.gives));
            let arguments = arguments.chain(interface.signals.iter().flat_map(|signal| signal.args));
            let kinds = arguments.map(|argument| argument.1).chain(interface.properties.iter().map(|one| one.kind));
            for kind in kinds {
                assert!(zbus::Signature::try_from(kind).is_ok(), "{}: {kind}", interface.name);
            }
        }
    }

    #[test]
    fn what_is_below_is_named() {
        assert!(DbusObject::Above("org").introspect(&[]).contains("<node name=\"org\"/>"));
        let xml = DbusObject::Pags.introspect(&[PagId::from(1)]);
        assert!(xml.contains("<node name=\"0000000000000001\"/>"), "{xml}");
        assert!(!xml.contains("org.pam_pag.Pag1.Pag"), "{xml}");
    }
}
