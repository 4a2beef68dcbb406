//! Which clients get in, and which don't: whole handshakes in memory.

#![allow(clippy::unwrap_used)] // A test's functions may fail the test.

mod support;

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pki::{
    Authority, CertificateRequest, ClientAuth, Identity, LiveIdentity, Renewal, RevokedKeys, Subject, Trust,
    Usage, Validity,
};
use rustls::client::Resumption;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection};
use support::{carry, host, live, names, now, shake};

fn subject_of(server: &ServerConnection) -> String {
    let certificate = &server.peer_certificates().unwrap()[0];
    x509_parser::parse_x509_certificate(certificate).unwrap().1.subject().to_string()
}

#[test]
fn hosts_know_each_other_and_resume_their_session() {
    let authority = Authority::create("holdfast", now()).unwrap();
    let trust = authority.trust().unwrap();
    let server = host(&authority, "n1").server_config(&trust, ClientAuth::Required, &[b"peer"]).unwrap();
    let client = host(&authority, "n2").client_config(&trust, &[b"peer"]).unwrap();

    let names =
        ["n1", "127.0.1.1", "127.0.0.1", "127.0.0.100", "127.96.0.1", "localhost", "kubernetes.default.svc"];
    for name in names {
        let (_, server) = shake(client.clone(), server.clone(), name).unwrap();
        assert_eq!(subject_of(&server), "O=system:nodes, CN=system:node:n2", "{name}");
        assert_eq!(server.alpn_protocol(), Some(&b"peer"[..]));
    }
    let (client, server) = shake(client, server, "n1").unwrap();
    assert_eq!(client.handshake_kind(), Some(HandshakeKind::Resumed));
    assert_eq!(subject_of(&server), "O=system:nodes, CN=system:node:n2");
}

#[test]
fn who_has_no_certificate_gets_in_only_where_it_is_optional() {
    let authority = Authority::create("holdfast", now()).unwrap();
    let trust = authority.trust().unwrap();
    let n1 = host(&authority, "n1");
    let nobody = trust.client_config(&[]).unwrap();
    let admin = authority.admin_identity(now()).unwrap().client_config(&trust, &[]).unwrap();

    let optional = n1.server_config(&trust, ClientAuth::Optional, &[]).unwrap();
    let (_, server) = shake(nobody.clone(), optional.clone(), "n1").unwrap();
    assert!(server.peer_certificates().is_none());
    let (_, server) = shake(admin, optional, "n1").unwrap();
    assert_eq!(subject_of(&server), "O=system:masters, CN=kubernetes-admin");

    let required = n1.server_config(&trust, ClientAuth::Required, &[]).unwrap();
    assert!(shake(nobody, required, "n1").is_err());
}

#[test]
fn another_authority_of_the_same_name_is_not_believed() {
    let ours = Authority::create("holdfast", now()).unwrap();
    let theirs = Authority::create("holdfast", now()).unwrap();
    let (trust, other) = (ours.trust().unwrap(), theirs.trust().unwrap());
    for auth in [ClientAuth::Required, ClientAuth::Optional] {
        let server = host(&ours, "n1").server_config(&trust, auth, &[]).unwrap();
        let intruder = host(&theirs, "n2").client_config(&trust, &[]).unwrap();
        assert!(shake(intruder, server.clone(), "n1").is_err(), "a client of another authority, {auth:?}");
        let victim = host(&ours, "n2").client_config(&other, &[]).unwrap();
        assert!(shake(victim, server.clone(), "n1").is_err(), "a server of another authority, {auth:?}");
        let mistaken = host(&ours, "n2").client_config(&trust, &[]).unwrap();
        assert!(shake(mistaken, server, "n9").is_err(), "a server of another name, {auth:?}");
    }
}

#[test]
fn an_old_certificate_and_an_administrator_as_server_are_refused() {
    let authority = Authority::create("holdfast", now()).unwrap();
    let trust = authority.trust().unwrap();
    let n1 = host(&authority, "n1").client_config(&trust, &[]).unwrap();
    let subject = Subject { common_name: "old".into(), organization: None };
    let validity = Validity { from: SystemTime::UNIX_EPOCH, until: Validity::years(now(), 1).from };
    let old = authority.issue(&subject, &["old".into()], &[], validity).unwrap();
    let admin = authority.admin_identity(now()).unwrap();
    for identity in [old, admin] {
        let server = identity.server_config(&trust, ClientAuth::Optional, &[]).unwrap();
        assert!(shake(n1.clone(), server, "old").is_err());
    }
}

#[test]
fn what_is_saved_is_loaded_and_works_with_what_was_there_before() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create("holdfast", now()).unwrap();
    authority.save(folder.path()).unwrap();
    host(&authority, "n1").save(folder.path(), "host").unwrap();

    let again = Authority::load(folder.path()).unwrap();
    assert_eq!(again.heartbeat_key().unwrap(), authority.heartbeat_key().unwrap());
    let trust = Trust::load(folder.path()).unwrap();
    let n1 = Identity::load(folder.path(), "host").unwrap();
    let server = n1.server_config(&trust, ClientAuth::Required, &[]).unwrap();
    shake(host(&again, "n2").client_config(&trust, &[]).unwrap(), server, "n1").unwrap();
}

#[test]
fn what_does_not_belong_together_or_is_broken_is_refused_in_words() {
    let (one, two) = (Authority::create("a", now()).unwrap(), Authority::create("b", now()).unwrap());
    let wrong = Authority::from_pem(one.certificate_pem(), two.key_pem().clone()).unwrap_err();
    assert_eq!(wrong.to_string(), "the certificate of CN=a and its key don't belong together");
    let leaf = host(&one, "n1");
    assert!(Authority::from_pem(leaf.certificate_pem(), leaf.key_pem().clone()).is_err());
    let mixed = Identity::from_pem(leaf.certificate_pem(), host(&one, "n2").key_pem().clone()).unwrap();
    assert!(mixed.server_config(&one.trust().unwrap(), ClientAuth::Required, &[]).is_err());
    for text in ["", "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert!(Trust::from_pem(text).is_err(), "{text:?}");
        assert!(Authority::from_pem(text, one.key_pem().clone()).is_err(), "{text:?}");
    }
    let subject = Subject { common_name: "x".into(), organization: None };
    let names = ["snow☃".to_owned()];
    assert!(one.issue(&subject, &names, &[], Validity::years(now(), 1)).is_err());
}

#[test]
fn no_key_shows_in_debug_output() {
    let authority = Authority::create("holdfast", now()).unwrap();
    let identity = host(&authority, "n1");
    let shown = format!("{authority:?} {identity:?} {:?}", authority.heartbeat_key().unwrap());
    assert!(!shown.contains("PRIVATE KEY"), "{shown}");
}

/// A request as another program makes it.
fn request(group: &str) -> (CertificateRequest, rcgen::KeyPair) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["jane.example".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "jane");
    params.distinguished_name.push(rcgen::DnType::OrganizationName, group);
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    (CertificateRequest::from_pem(pem.as_bytes()).unwrap(), key)
}

#[test]
fn a_certificate_by_request_lets_its_holder_in_while_it_is_valid_and_only_where_its_authority_is_believed() {
    let cluster = Authority::create("holdfast", now()).unwrap();
    let requests = Authority::create("holdfast-requests", now()).unwrap();
    let trust = cluster.trust().unwrap();
    let users = trust.and(&requests.trust().unwrap()).unwrap();
    let n1 = host(&cluster, "n1");
    let api = n1.server_config(&users, ClientAuth::Optional, &[]).unwrap();
    let peers = n1.server_config(&trust, ClientAuth::Required, &[]).unwrap();

    let (request, key) = request("dev");
    let minute = std::time::Duration::from_secs(60);
    let client = |from: SystemTime, until: SystemTime, usages: &[Usage]| {
        let pem = requests.sign(&request, usages, Validity { from, until }).unwrap();
        let identity = Identity::from_pem(pem, pki::SecretText::new(key.serialize_pem())).unwrap();
        identity.client_config_for_any_age(&trust, &[]).unwrap()
    };
    let uses = [Usage::DigitalSignature, Usage::ClientAuth];
    let good = client(now() - minute, now() + minute, &uses);
    let (_, server) = shake(good.clone(), api.clone(), "n1").unwrap();
    assert_eq!(subject_of(&server), "CN=jane, O=dev");
    assert!(shake(good, peers, "n1").is_err(), "no member of the store");
    let over = client(now() - 3 * minute, now() - 2 * minute, &uses);
    assert!(shake(over, api.clone(), "n1").is_err(), "it is over");
    let server_only = client(now() - minute, now() + minute, &[Usage::DigitalSignature, Usage::ServerAuth]);
    assert!(shake(server_only, api, "n1").is_err(), "it is for servers alone");
}

#[test]
fn a_certificate_by_request_says_what_was_granted_and_ends_with_its_authority() {
    let authority = Authority::create("requests", now()).unwrap();
    let (request, _) = request("dev");
    let century = Validity { from: now(), until: now() + std::time::Duration::from_secs(3_200_000_000) };
    let pem = authority.sign(
        &request,
        &[Usage::DigitalSignature, Usage::KeyEncipherment, Usage::ServerAuth],
        century,
    );
    let pem = pem.unwrap();
    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    let certificate = block.parse_x509().unwrap();
    let (_, own) = x509_parser::pem::parse_x509_pem(authority.certificate_pem().as_bytes()).unwrap();
    let own = own.parse_x509().unwrap();
    certificate.verify_signature(Some(own.public_key())).unwrap();
    assert_eq!(certificate.issuer(), own.subject());
    assert_eq!(certificate.validity().not_after, own.validity().not_after);
    assert!(!certificate.is_ca());
    let usage = certificate.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
    let purposes = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.server_auth && !purposes.client_auth);
    let names = certificate.subject_alternative_name().unwrap().unwrap().value;
    assert_eq!(names.general_names, [x509_parser::extensions::GeneralName::DNSName("jane.example")]);
    assert_eq!(
        pki::valid_until(&pem),
        pki::valid_until(authority.certificate_pem()),
        "and its end can be read from it"
    );
    let other = authority.sign(&request, &[Usage::ClientAuth], century).unwrap();
    let (_, other) = x509_parser::pem::parse_x509_pem(other.as_bytes()).unwrap();
    assert_ne!(other.parse_x509().unwrap().raw_serial(), certificate.raw_serial());
}

#[test]
fn where_hosts_speak_to_each_other_nobody_else_gets_in() {
    let authority = Authority::create("holdfast", now()).unwrap();
    let trust = authority.trust().unwrap();
    let revoked = RevokedKeys::default();
    let door = live(&authority, "n1").members_config(&trust, &revoked).unwrap();
    let n2 = host(&authority, "n2").client_config(&trust, &[]).unwrap();
    let (_, server) = shake(n2.clone(), door.clone(), "n1").unwrap();
    assert_eq!(subject_of(&server), "O=system:nodes, CN=system:node:n2");
    let former = host(&authority, "n2");
    revoked.replace([former.key_hash().unwrap()].into());
    let agent = live(&authority, "n1").agent_config(&trust, &revoked, &[]).unwrap();
    for door in [&door, &agent] {
        assert!(shake(former.client_config(&trust, &[]).unwrap(), door.clone(), "n1").is_err());
    }
    let admin = authority.admin_identity(now()).unwrap().client_config(&trust, &[]).unwrap();
    shake(admin.clone(), agent.clone(), "n1").unwrap();
    for (who, door) in [(n2, door.clone()), (admin, agent)] {
        let (client, _) = shake(who, door, "n1").unwrap();
        assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full), "each is looked at anew");
    }
    let of = |user: &str, group: Option<&str>| {
        let subject = Subject { common_name: user.into(), organization: group.map(str::to_owned) };
        authority.issue(&subject, &["n2".into()], &[], Validity::years(now(), 1)).unwrap()
    };
    for other in [
        authority.admin_identity(now()).unwrap(),
        authority.front_proxy_identity(now()).unwrap(),
        of("system:node:n2", None),
        of("system:node:", Some("system:nodes")),
        of("n2", Some("system:nodes")),
    ] {
        let client = other.client_config(&trust, &[]).unwrap();
        assert!(shake(client, door.clone(), "n1").is_err());
    }
    assert!(shake(trust.client_config(&[]).unwrap(), door, "n1").is_err(), "without any");
}

#[test]
fn a_host_believes_no_server_whose_key_was_taken_back() {
    let [authority, other] = ["holdfast"; 2].map(|name| Authority::create(name, now()).unwrap());
    let (trust, revoked, former) =
        (authority.trust().unwrap(), RevokedKeys::default(), host(&authority, "n2"));
    let asks = live(&authority, "n1").peer_config(&trust, &revoked, &[]).unwrap();
    // It hands out tickets, by which a session could go on without a look at its certificate.
    let door = |of: &Identity| of.server_config(&trust, ClientAuth::Required, &[]).unwrap();
    let ask = |door: &Arc<ServerConfig>, name: &str| shake(asks.clone(), door.clone(), name);
    let formers = door(&former);
    assert!(ask(&formers, "n2").is_ok() && ask(&formers, "n3").is_err());
    assert!(ask(&door(&host(&other, "n2")), "n2").is_err(), "of another authority");
    revoked.replace([former.key_hash().unwrap()].into());
    assert!(ask(&formers, "n2").is_err() && ask(&door(&host(&authority, "n2")), "n2").is_ok());
}

#[test]
fn whatever_listens_speaks_tls_1_3_alone_and_calls_out_with_1_2_too() {
    let authority = Authority::create("holdfast", now()).unwrap();
    let trust = authority.trust().unwrap();
    let n1 = host(&authority, "n1");
    let mut roots = rustls::RootCertStore::empty();
    let (_, pem) = x509_parser::pem::parse_x509_pem(trust.pem().as_bytes()).unwrap();
    roots.add(pem.contents.into()).unwrap();
    let provider = || Arc::new(rustls::crypto::ring::default_provider());
    let old = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let members = live(&authority, "n1").members_config(&trust, &RevokedKeys::default()).unwrap();
    let others = [ClientAuth::Optional, ClientAuth::Required];
    let others = others.map(|auth| n1.server_config(&trust, auth, &[]).unwrap());
    for server in others.into_iter().chain([members]) {
        assert!(shake(Arc::new(old.clone()), server, "n1").is_err());
    }
    let (chain, key) = (n1.certificate_pem(), n1.key_pem().expose());
    let (_, chain) = x509_parser::pem::parse_x509_pem(chain.as_bytes()).unwrap();
    let (_, key) = x509_parser::pem::parse_x509_pem(key.as_bytes()).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.contents);
    let webhook = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![chain.contents.into()], key.into())
        .unwrap();
    let client = n1.client_config_for_any_age(&trust, &[]).unwrap();
    let (client, _) = shake(client, Arc::new(webhook), "n1").unwrap();
    assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
}

#[test]
fn an_authority_vouches_for_its_own_while_they_are_valid() {
    let (own, other) =
        (Authority::create("holdfast", now()).unwrap(), Authority::create("holdfast", now()).unwrap());
    let shown = |authority: &Authority| {
        let identity = authority.admin_identity(now()).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(identity.certificate_pem().as_bytes()).unwrap();
        rustls::pki_types::CertificateDer::from(pem.contents)
    };
    let trust = own.trust().unwrap();
    assert!(trust.vouches_for(&shown(&own), now()));
    assert!(!trust.vouches_for(&shown(&other), now()), "another one of the same name");
    assert!(!trust.vouches_for(&shown(&own), SystemTime::UNIX_EPOCH));
}

/// What `openssl req -x509` makes: a server's certificate that is an authority's, signed by itself.
fn self_signed(change: impl FnOnce(&mut rcgen::CertificateParams)) -> Identity {
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned(), "hook.default.svc".to_owned()];
    let mut params = rcgen::CertificateParams::new(names).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    change(&mut params);
    let certificate = params.self_signed(&key).unwrap();
    Identity::from_pem(certificate.pem(), pki::SecretText::new(key.serialize_pem())).unwrap()
}

/// A handshake with a server that shows `server`, by clients that believe `bundle`.
fn believes(bundle: &str, server: &Identity, name: &str) -> Result<(), String> {
    let trust = Trust::from_pem(bundle).unwrap();
    let shown = server.server_config(&trust, ClientAuth::Optional, &[]).unwrap();
    let own = host(&Authority::create("holdfast", now()).unwrap(), "n1");
    let with = own.client_config_for_any_age(&trust, &[]).unwrap();
    let in_words = |error: rustls::Error| error.to_string();
    let without = shake(trust.client_config(&[]).unwrap(), shown.clone(), name).map(drop).map_err(in_words);
    let with = shake(with, shown, name).map(drop).map_err(in_words);
    // A certificate of the client's that the server doesn't know ends the handshake after the server's was believed.
    let is_unknown = with.as_ref().is_err_and(|error| error.contains("UnknownIssuer"));
    assert!(with == without || is_unknown && without.is_ok(), "{with:?} is not {without:?}");
    without
}

#[test]
fn a_server_whose_own_certificate_is_in_the_bundle_is_believed_as_go_does() {
    let server = self_signed(|_| {});
    for name in ["127.0.0.1", "hook.default.svc"] {
        assert_eq!(believes(server.certificate_pem(), &server, name), Ok(()));
    }
    let other = self_signed(|_| {});
    let both = format!("{}{}", other.certificate_pem(), server.certificate_pem());
    assert_eq!(believes(&both, &server, "127.0.0.1"), Ok(()), "beside another one");
    let plain = self_signed(|params| params.is_ca = rcgen::IsCa::NoCa);
    assert_eq!(believes(plain.certificate_pem(), &plain, "127.0.0.1"), Ok(()), "no authority's");
    let authority = Authority::create("others", now()).unwrap();
    let leaf = host(&authority, "n1");
    assert_eq!(believes(leaf.certificate_pem(), &leaf, "127.0.0.1"), Ok(()), "signed by somebody unknown");

    let refused = |bundle: &Identity, server: &Identity, name: &str, why: &str| {
        let error = believes(bundle.certificate_pem(), server, name).unwrap_err();
        assert!(error.contains(why), "{why}: {error}");
    };
    refused(&server, &server, "127.0.0.2", "not valid for name");
    refused(&server, &server, "other.default.svc", "not valid for name");
    refused(&other, &server, "127.0.0.1", "CaUsedAsEndEntity");
    refused(&leaf, &plain, "127.0.0.1", "UnknownIssuer");
    let over = self_signed(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 2));
    refused(&over, &over, "127.0.0.1", "Expired");
    let early = self_signed(|params| params.not_before = rcgen::date_time_ymd(3000, 1, 1));
    refused(&early, &early, "127.0.0.1", "NotValidYet");
    let client = self_signed(|params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    });
    refused(&client, &client, "127.0.0.1", "InvalidPurpose");
}

/// Sends a word from the client to the server, and says what came.
fn say(client: &mut ClientConnection, server: &mut ServerConnection) -> Vec<u8> {
    client.writer().write_all(b"still here").unwrap();
    carry(client, server).unwrap();
    let mut heard = vec![0; 10];
    server.reader().read_exact(&mut heard).unwrap();
    heard
}

/// A clock that stands.
#[derive(Debug)]
struct At(UnixTime);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.0)
    }
}

/// A new handshake of the two, at a time.
fn shake_at(
    client: &ClientConfig,
    server: &ServerConfig,
    at: SystemTime,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let at = UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap());
    let (mut client, mut server) = (client.clone(), server.clone());
    client.time_provider = Arc::new(At(at));
    server.time_provider = Arc::new(At(at));
    client.resumption = Resumption::disabled();
    shake(Arc::new(client), Arc::new(server), "n1")
}

#[test]
fn certificates_are_renewed_while_connections_go_on_and_also_long_after_their_end() {
    // A minute stands for three months.
    let (life, start) = (Duration::from_secs(60), now());
    let authority = Authority::create("holdfast", start).unwrap();
    let trust = authority.trust().unwrap();
    let [server, client] = ["n1", "n2"].map(|name| live(&authority, name));
    // Made once; what they show is renewed beneath them.
    let tls = server.members_config(&trust, &RevokedKeys::default()).unwrap();
    let asks = client.client_config(&trust, &[]).unwrap();
    let (mut open, mut opened) = shake(asks.clone(), tls.clone(), "n1").unwrap();

    let renew = |live: &LiveIdentity, name: &str, now: SystemTime| {
        let new =
            authority.renew_host(&live.current(), &names(name), Renewal { life, early: 0, now }).unwrap();
        new.is_some_and(|new| live.replace(new).is_ok())
    };
    let mut seen = Vec::new();
    for step in 1..=10 {
        // What was made to last for years is renewed as what lasts a minute is; the others are over just now.
        let at = start + life * step;
        assert!(renew(&server, "n1", at) && renew(&client, "n2", at), "step {step}");
        for at in [at, at + life / 2] {
            let (other, _) = shake_at(&asks, &tls, at).unwrap();
            seen.push(other.peer_certificates().unwrap()[0].clone());
        }
        assert!(!renew(&server, "n1", at + life / 2), "not before it is due");
        assert_eq!(say(&mut open, &mut opened), b"still here");
    }
    seen.dedup();
    assert_eq!(seen.len(), 10, "each handshake showed the certificate of its time");

    let late = start + life * 10_000;
    assert!(shake_at(&asks, &tls, late).is_err(), "both are over");
    assert!(renew(&server, "n1", late));
    assert!(shake_at(&asks, &tls, late).is_err(), "the client's is over");
    assert!(renew(&client, "n2", late));
    shake_at(&asks, &tls, late).unwrap();
    assert_eq!(say(&mut open, &mut opened), b"still here");
    let other = Authority::create("other", start).unwrap();
    let odd =
        Identity::from_pem(host(&authority, "n1").certificate_pem(), host(&other, "n1").key_pem().clone());
    server.replace(odd.unwrap()).unwrap_err();
    shake_at(&asks, &tls, late).expect("what is no pair is not taken");
}
