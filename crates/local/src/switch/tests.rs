use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::{AddressKind, Announcement, Entry, Error, Protocol, Switch, SwitchAddresses};

const SILENCE: Duration = Duration::from_millis(200);

async fn switch() -> (Switch, UdpSocket) {
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    let switch = Switch::start(SwitchAddresses { announcements: any, virtual_address: any }).await.unwrap();
    let host = UdpSocket::bind(any).await.unwrap();
    host.connect(switch.addresses().announcements).await.unwrap();
    (switch, host)
}

async fn announce(from: &UdpSocket, host: &str, entries: Vec<Entry>) {
    let announcement = Announcement { host: host.into(), entries };
    from.send(&serde_json::to_vec(&announcement).unwrap()).await.unwrap();
}

fn entry(kind: AddressKind, protocol: Protocol, address: SocketAddr, target: SocketAddr) -> Entry {
    Entry { kind, address: address.ip(), port: address.port(), protocol, target }
}

/// An address that nobody had a moment ago.
async fn unused() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Answers each connection with a byte, and then stays.
async fn target(answer: u8) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut connection, _)) = listener.accept().await {
            connection.write_u8(answer).await.unwrap();
            kept.push(connection);
        }
    });
    address
}

#[tokio::test]
async fn a_connection_to_an_address_that_nobody_holds_waits_in_silence() {
    let (switch, host) = switch().await;
    let vip = switch.addresses().virtual_address;
    let mut early = TcpStream::connect(vip).await.unwrap();
    assert!(tokio::time::timeout(SILENCE, early.read_u8()).await.is_err(), "silence");
    announce(&host, "n1", vec![entry(AddressKind::Vip, Protocol::Tcp, vip, target(1).await)]).await;
    assert_eq!(early.read_u8().await.unwrap(), 1);
}

#[tokio::test]
async fn a_new_holder_gets_the_new_connections_and_resets_those_it_does_not_know() {
    let (switch, host) = switch().await;
    let vip = switch.addresses().virtual_address;
    announce(&host, "n1", vec![entry(AddressKind::Vip, Protocol::Tcp, vip, target(1).await)]).await;
    let mut old = TcpStream::connect(vip).await.unwrap();
    assert_eq!(old.read_u8().await.unwrap(), 1);
    announce(&host, "n2", vec![entry(AddressKind::Vip, Protocol::Tcp, vip, target(2).await)]).await;
    while TcpStream::connect(vip).await.unwrap().read_u8().await.unwrap() != 2 {}
    assert!(tokio::time::timeout(SILENCE, old.read_u8()).await.is_err(), "silence, not an end");
    old.write_u8(0).await.unwrap();
    assert_eq!(old.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn the_same_holder_keeps_its_connections_however_often_it_says_so() {
    let (switch, host) = switch().await;
    let vip = switch.addresses().virtual_address;
    let entries = vec![entry(AddressKind::Vip, Protocol::Tcp, vip, target(1).await)];
    announce(&host, "n1", entries.clone()).await;
    let mut kept = TcpStream::connect(vip).await.unwrap();
    assert_eq!(kept.read_u8().await.unwrap(), 1);
    announce(&host, "n1", entries).await;
    announce(&host, "n2", vec![]).await;
    kept.write_u8(0).await.unwrap();
    assert!(tokio::time::timeout(SILENCE, kept.read_u8()).await.is_err(), "it lives");
}

#[tokio::test]
async fn a_service_is_listened_on_while_it_is_announced() {
    let (_switch, host) = switch().await;
    let service = unused().await;
    let entries = vec![entry(AddressKind::Service, Protocol::Tcp, service, target(3).await)];
    announce(&host, "n1", entries).await;
    let mut kept = loop {
        if let Ok(connection) = TcpStream::connect(service).await {
            break connection;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(kept.read_u8().await.unwrap(), 3);
    announce(&host, "n1", vec![]).await;
    loop {
        match TcpStream::connect(service).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => break,
            _ => tokio::task::yield_now().await,
        }
    }
    assert!(
        tokio::time::timeout(SILENCE, kept.read_u8()).await.is_err(),
        "a connection outlasts its address"
    );
}

#[tokio::test]
async fn a_host_that_refuses_is_passed_over() {
    let (_switch, host) = switch().await;
    let service = unused().await;
    announce(&host, "n1", vec![entry(AddressKind::Service, Protocol::Tcp, service, unused().await)]).await;
    announce(&host, "n2", vec![entry(AddressKind::Service, Protocol::Tcp, service, target(2).await)]).await;
    let mut answers = 0;
    while answers < 4 {
        // The service may not be listened on, or the second host not be known yet.
        if let Ok(mut connection) = TcpStream::connect(service).await
            && let Ok(answer) = connection.read_u8().await
        {
            assert_eq!(answer, 2);
            answers += 1;
        }
    }
}

#[tokio::test]
async fn datagrams_go_there_and_back() {
    let (_switch, host) = switch().await;
    let echo = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let target = echo.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 100];
        while let Ok((length, from)) = echo.recv_from(&mut buffer).await {
            echo.send_to(&buffer[..length], from).await.unwrap();
        }
    });
    let service = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let caller = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    caller.connect(service).await.unwrap();
    let mut buffer = [0; 100];
    // Datagrams before the switch listens are lost, as is usual for datagrams.
    let length = loop {
        announce(&host, "n1", vec![entry(AddressKind::Service, Protocol::Udp, service, target)]).await;
        let _ = caller.send(b"hello").await;
        if let Ok(Ok(length)) = tokio::time::timeout(SILENCE / 4, caller.recv(&mut buffer)).await {
            break length;
        }
    };
    assert_eq!(&buffer[..length], b"hello");
}

#[tokio::test]
async fn nonsense_does_no_harm() {
    let (switch, host) = switch().await;
    let vip = switch.addresses().virtual_address;
    for nonsense in [&b""[..], b"{", b"[]", &[0xff; 1000]] {
        host.send(nonsense).await.unwrap();
    }
    announce(&host, "n1", vec![entry(AddressKind::Vip, Protocol::Tcp, vip, target(1).await)]).await;
    assert_eq!(TcpStream::connect(vip).await.unwrap().read_u8().await.unwrap(), 1);
}

#[tokio::test]
async fn a_second_switch_is_told_so() {
    let (switch, _host) = switch().await;
    let error = Switch::start(switch.addresses()).await.unwrap_err();
    assert!(matches!(error, Error::InUse { address } if address == switch.addresses().virtual_address));
}
