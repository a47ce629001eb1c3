// SPDX-License-Identifier: Apache-2.0

package coresdk

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// checkTLSFiles reports which of the three files is missing when some are
// named. The published SDK falls back to plaintext then.
func (c Config) checkTLSFiles() error {
	var missing []string
	for _, f := range []struct{ name, path string }{
		{"CORESDK_TLS_CERT (Config.TLSCert)", c.TLSCert},
		{"CORESDK_TLS_KEY (Config.TLSKey)", c.TLSKey},
		{"CORESDK_TLS_CA (Config.TLSCA)", c.TLSCA},
	} {
		if f.path == "" {
			missing = append(missing, f.name)
		}
	}
	if len(missing) == 0 || len(missing) == 3 {
		return nil
	}
	return fmt.Errorf("coresdk: mutual TLS needs all three files; not set: %s", strings.Join(missing, ", "))
}

// transport returns the credentials for the address and whether they are
// plaintext. It refuses plaintext that could leave the machine.
func (c Config) transport(a address) (creds credentials.TransportCredentials, plain bool, err error) {
	if c.TLSCert != "" {
		m := mutualTLS{cert: c.TLSCert, key: c.TLSKey, ca: c.TLSCA}
		if _, err := m.config(); err != nil { // now, not at the first call
			return nil, false, fmt.Errorf("coresdk: %w", err)
		}
		return m, false, nil
	}
	if a.network == "unix" || c.Dev && a.loopback() {
		return insecure.NewCredentials(), true, nil
	}
	return nil, false, errors.New("coresdk: plaintext to the sidecar is refused: " +
		"set CORESDK_TLS_CERT, CORESDK_TLS_KEY and CORESDK_TLS_CA, or reach it by a unix socket (unix:///path); " +
		"loopback without TLS is for CORESDK_ENV=dev only")
}

// mutualTLS is TLS 1.3 with a certificate on both sides. Its files are read
// for each connection: short-lived certificates are renewed under our feet.
type mutualTLS struct{ cert, key, ca string }

func (m mutualTLS) config() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(m.cert, m.key)
	if err != nil {
		return nil, fmt.Errorf("reading CORESDK_TLS_CERT and CORESDK_TLS_KEY: %w", err)
	}
	pem, err := os.ReadFile(m.ca)
	if err != nil {
		return nil, fmt.Errorf("reading CORESDK_TLS_CA: %w", err)
	}
	roots := x509.NewCertPool() // not the system's: only our authority speaks for the sidecar
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("reading CORESDK_TLS_CA: no certificate in the file")
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, RootCAs: roots}, nil
}

func (m mutualTLS) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	cfg, err := m.config()
	if err != nil {
		return nil, nil, err
	}
	return credentials.NewTLS(cfg).ClientHandshake(ctx, authority, raw)
}

func (m mutualTLS) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("coresdk: these credentials are a client's")
}

func (m mutualTLS) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (m mutualTLS) Clone() credentials.TransportCredentials { return m }

func (m mutualTLS) OverrideServerName(string) error {
	return errors.New("coresdk: the server name is the address's")
}
