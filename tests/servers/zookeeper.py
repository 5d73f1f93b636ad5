"""ZooKeeper 3.8 and 3.9: a small, quickly starting JVM, asked by its four-letter words.

`auth` loads SASL DIGEST-MD5 with the users below; the scheme `digest` needs nothing of the server. Clients over TLS
where asked for (then there is no plain port), members among themselves without. Never turns forceSync off.
"""

from __future__ import annotations

import re

from tests.servers import binaries
from tests.servers.family import Credentials, Family, Launch, Standing
from tests.servers.places import NoAnswer, exchange

TICK_MS = 1000  # sessions last 2 to 20 ticks
JVM = (
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-Xshare:auto",
)
OWNER = Credentials("kvnet", "password-of-kvnet")
STRANGER = Credentials("stranger", "password-of-stranger")
LOGGING = """\
log4j.rootLogger=WARN, err
log4j.appender.err=org.apache.log4j.ConsoleAppender
log4j.appender.err.target=System.err
log4j.appender.err.layout=org.apache.log4j.PatternLayout
log4j.appender.err.layout.ConversionPattern=%d{ISO8601} %p %c{1} %m%n
"""


class ZooKeeper(Family):
    SCHEME = "zk"
    PORTS = ("client", "peer", "election")

    def launch(self, index: int, *, joins: bool) -> Launch:
        folder, data = self.site.folder(index), self.site.data(index)
        data.mkdir(exist_ok=True)
        (data / "myid").write_text(f"{index + 1}\n")
        (folder / "zoo.cfg").write_text("\n".join([*self._settings(index), *self.site.options, ""]))
        (folder / "log4j.properties").write_text(LOGGING)
        options = [*JVM, f"-Dlog4j.configuration=file:{folder / 'log4j.properties'}"]
        if self.site.auth:
            users = " ".join(f'user_{who.user}="{who.password}"' for who in (OWNER, STRANGER))
            module = f"org.apache.zookeeper.server.auth.DigestLoginModule required {users};"
            (folder / "jaas.conf").write_text(f"Server {{ {module} }};\n")
            options.append(f"-Djava.security.auth.login.config={folder / 'jaas.conf'}")
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        java = str(binaries.program("java", "java"))
        return Launch([java, *options, "-cp", binaries.class_path(self.site.kind), main, str(folder / "zoo.cfg")])

    def _settings(self, index: int) -> list[str]:
        site = self.site
        address, port = site.places[index].address, site.ports[index]["client"]
        lines = [
            f"tickTime={TICK_MS}",
            "initLimit=10",
            "syncLimit=5",
            f"dataDir={site.data(index)}",
            "admin.enableServer=false",
            "maxClientCnxns=0",
            "4lw.commands.whitelist=*",
            "snapshot.trust.empty=true",
        ]
        if site.certificates:
            lines += [
                f"secureClientPort={port}",
                f"secureClientPortAddress={address}",
                "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory",
                f"ssl.keyStore.location={site.certificates.server.bundle}",
                "ssl.keyStore.type=PEM",
                f"ssl.trustStore.location={site.certificates.ca}",
                "ssl.trustStore.type=PEM",
                f"ssl.clientAuth={'need' if site.client_certificates else 'none'}",
            ]
        else:
            lines += [f"clientPort={port}", f"clientPortAddress={address}"]
        if site.auth:
            lines.append("authProvider.sasl=org.apache.zookeeper.server.auth.SASLAuthenticationProvider")
        if len(site.places) > 1:
            for i in site.everywhere():
                lines.append(f"server.{i + 1}={site.at(i, 'peer')}:{site.ports[i]['election']}")
        return lines

    async def is_ready(self, index: int) -> bool:
        return "Mode: " in await self.ask(index, "srvr")

    async def standing(self, index: int) -> Standing:
        answer = await self.ask(index, "srvr")
        zxid = re.search(r"^Zxid: 0x([0-9a-f]+)", answer, re.MULTILINE)
        if zxid is None:
            raise NoAnswer(f"{self.site.name(index)} says: {answer.strip()}")
        leads = "Mode: leader" in answer or "Mode: standalone" in answer
        return Standing(leads, int(zxid[1], 16) >> 32)

    async def grant(self, prefix: str) -> Credentials:
        """Who may do what is said by the nodes themselves in ZooKeeper: the owner creates them so."""
        return OWNER

    async def stranger(self) -> Credentials:
        return STRANGER

    async def ask(self, index: int, word: str) -> str:
        """A four-letter word.

        Raises:
            NoAnswer: it cannot be asked.
        """
        place, port = self.site.places[index], self.site.ports[index]["client"]
        return (await exchange(place, port, word.encode(), self.tls)).decode(errors="replace")
