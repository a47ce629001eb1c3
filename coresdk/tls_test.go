// SPDX-License-Identifier: Apache-2.0

package coresdk_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/medirecord/medirecord/coresdk"
	"github.com/medirecord/medirecord/coresdk/coresdktest"
)

func TestMutualTLS(t *testing.T) {
	t.Parallel()
	ours, theirs := newPKI(t), newPKI(t)
	with := func(change func(*tls.Config)) *tls.Config { // a sidecar of ours, changed
		c := ours.mutual()
		change(c)
		return c
	}
	good := coresdk.Config{TLSCert: ours.client.cert, TLSKey: ours.client.key, TLSCA: ours.ca}

	for name, addr := range map[string]string{"loopback": loopback, "a unix socket": ""} {
		t.Run("both sides known, over "+name, func(t *testing.T) {
			t.Parallel()
			c := good
			c.Addr = serve(t, saying(yes()), coresdktest.Options{Addr: addr, TLS: ours.mutual()}).Addr
			_, err := connect(t, c).Authorize(t.Context(), token)
			noError(t, err)
		})
	}

	for name, tc := range map[string]struct {
		server *tls.Config // nil: plaintext
		client coresdk.Config
		says   string
	}{
		"a sidecar of another authority":     {ours.mutual(), coresdk.Config{TLSCert: ours.client.cert, TLSKey: ours.client.key, TLSCA: theirs.ca}, "unknown authority"},
		"a client of another authority":      {ours.mutual(), coresdk.Config{TLSCert: theirs.client.cert, TLSKey: theirs.client.key, TLSCA: ours.ca}, ""},
		"TLS 1.2 only":                       {with(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }), good, "protocol version"},
		"plaintext where TLS is expected":    {nil, good, "TLS"},
		"a certificate of another host":      {with(func(c *tls.Config) { c.Certificates = []tls.Certificate{ours.stranger} }), good, "certificate"},
		"a client's certificate on a server": {with(func(c *tls.Config) { c.Certificates = []tls.Certificate{ours.client.pair(t)} }), good, "certificate"},
		"no client certificate":              {ours.mutual(), coresdk.Config{Dev: true}, ""}, // plaintext in dev
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			t.Parallel()
			c := tc.client
			c.Addr = serve(t, saying(yes()), coresdktest.Options{Addr: loopback, TLS: tc.server}).Addr
			c.ConnectTimeout = 5 * time.Second // for one handshake at least: what it failed for is what it tells
			sdk, err := coresdk.New(t.Context(), c)
			refused(t, sdk, err, tc.says)
		})
	}
}

func TestASidecarThatWantsAClientCertificateGetsOne(t *testing.T) {
	t.Parallel()
	// Refused by the server above is only worth something if it does refuse:
	// the same server, a client without a certificate.
	ours := newPKI(t)
	s := serve(t, saying(yes()), coresdktest.Options{Addr: loopback, TLS: ours.mutual()})
	conn, err := tls.Dial("tcp", s.Addr, &tls.Config{RootCAs: ours.pool, NextProtos: []string{"h2"}})
	noError(t, err)
	defer func() { _ = conn.Close() }()
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the sidecar speaks to a client without a certificate")
	}
}

func TestBadTLSFilesAreNamed(t *testing.T) {
	t.Parallel()
	ours, theirs := newPKI(t), newPKI(t)
	empty := filepath.Join(t.TempDir(), "empty.pem")
	noError(t, os.WriteFile(empty, nil, 0o600))
	for name, tc := range map[string]struct {
		config coresdk.Config
		says   string
	}{
		"another key":         {coresdk.Config{TLSCert: ours.client.cert, TLSKey: theirs.client.key, TLSCA: ours.ca}, "CORESDK_TLS_KEY"},
		"an empty authority":  {coresdk.Config{TLSCert: ours.client.cert, TLSKey: ours.client.key, TLSCA: empty}, "CORESDK_TLS_CA"},
		"no authority's file": {coresdk.Config{TLSCert: ours.client.cert, TLSKey: ours.client.key, TLSCA: empty + "x"}, "CORESDK_TLS_CA"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := coresdk.New(t.Context(), tc.config)
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v; want it to name %s", err, tc.says)
			}
		})
	}
}

func TestRenewedCertificatesNeedNoRestart(t *testing.T) {
	t.Parallel()
	before, after := newPKI(t), newPKI(t)
	first := serve(t, saying(yes()), coresdktest.Options{Addr: loopback, TLS: before.mutual()})
	files := coresdk.Config{Addr: first.Addr, TLSCert: before.client.cert, TLSKey: before.client.key, TLSCA: before.ca}
	sdk := connect(t, files)
	noError(t, first.Close())

	// Everything is new, in the same files: authority, sidecar and client.
	for from, to := range map[string]string{after.client.cert: files.TLSCert, after.client.key: files.TLSKey, after.ca: files.TLSCA} {
		text, err := os.ReadFile(from)
		noError(t, err)
		noError(t, os.WriteFile(to, text, 0o600))
	}
	serve(t, saying(yes()), coresdktest.Options{Addr: first.Addr, TLS: after.mutual()})
	eventually(t, sdk)
}

// pki is an authority with what it signed, in files as the SDK wants them.
type pki struct {
	pool             *x509.CertPool
	ca               string // file
	server, stranger tls.Certificate
	client           keyFiles
}

// mutual is the configuration of a sidecar that trusts this authority only.
func (p pki) mutual() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{p.server},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: p.pool,
	}
}

type keyFiles struct{ cert, key string }

func (k keyFiles) pair(t *testing.T) tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(k.cert, k.key)
	noError(t, err)
	return pair
}

func newPKI(t *testing.T) pki {
	t.Helper()
	dir := t.TempDir()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	noError(t, err)
	p := pki{pool: x509.NewCertPool(), ca: filepath.Join(dir, "ca.pem")}
	writePEM(t, p.ca, "CERTIFICATE", der)
	root, err := x509.ParseCertificate(der)
	noError(t, err)
	p.pool.AddCert(root)

	sign := func(name string, use x509.ExtKeyUsage, hosts ...string) keyFiles {
		leaf := &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{use},
			NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature, DNSNames: hosts,
		}
		if len(hosts) > 0 && hosts[0] == "localhost" {
			leaf.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		}
		own := newKey(t)
		der, err := x509.CreateCertificate(rand.Reader, leaf, root, own.Public(), key)
		noError(t, err)
		private, err := x509.MarshalPKCS8PrivateKey(own)
		noError(t, err)
		files := keyFiles{filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")}
		writePEM(t, files.cert, "CERTIFICATE", der)
		writePEM(t, files.key, "PRIVATE KEY", private)
		return files
	}
	p.server = sign("sidecar", x509.ExtKeyUsageServerAuth, "localhost").pair(t)
	p.stranger = sign("stranger", x509.ExtKeyUsageServerAuth, "other.example").pair(t)
	p.client = sign("client", x509.ExtKeyUsageClientAuth, "localhost")
	return p
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	noError(t, err)
	return key
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	noError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}
