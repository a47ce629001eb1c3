// SPDX-License-Identifier: Apache-2.0

package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/token"
)

func TestThePublicListenerIsLoopbackOrTLS(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t)
	for name, c := range map[string]struct {
		cfg  Config
		want string // "" when it listens
	}{
		"loopback":                       {Config{Listen: "127.0.0.1:0"}, ""},
		"all addresses":                  {Config{Listen: ":0"}, "in the clear"},
		"all addresses, named":           {Config{Listen: "0.0.0.0:0"}, "in the clear"},
		"all addresses with TLS":         {Config{Listen: "0.0.0.0:0", HTTPCert: cert, HTTPKey: key}, ""},
		"a certificate without its key":  {Config{Listen: "127.0.0.1:0", HTTPCert: cert}, "belong together"},
		"a key without its certificate":  {Config{Listen: "127.0.0.1:0", HTTPKey: key}, "belong together"},
		"a certificate that is not here": {Config{Listen: "127.0.0.1:0", HTTPCert: cert + "x", HTTPKey: key}, "MEDIRECORD_HTTP_TLS_CERT"},
		"a key that is a certificate":    {Config{Listen: "127.0.0.1:0", HTTPCert: cert, HTTPKey: cert}, "MEDIRECORD_HTTP_TLS_CERT"},
		"no address":                     {Config{Listen: "somewhere"}, "MEDIRECORD_LISTEN"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ln, err := c.cfg.listenPublic(t.Context())
			if err == nil {
				_ = ln.Close()
			}
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestThePublicListenerSpeaksTLS13(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t)
	ln, err := (&Config{Listen: "127.0.0.1:0", HTTPCert: cert, HTTPKey: key}).listenPublic(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_ = c.(*tls.Conn).Handshake()
			_ = c.Close()
		}
	}()
	defer func() { _ = ln.Close(); <-done }()
	for version, ok := range map[uint16]bool{tls.VersionTLS13: true, tls.VersionTLS12: false} {
		c, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", ln.Addr().String(), &tls.Config{InsecureSkipVerify: true, MaxVersion: version}) //nolint:gosec // which version is all that is asked
		if err == nil {
			_ = c.Close()
		}
		if (err == nil) != ok {
			t.Errorf("TLS %x: %v", version, err)
		}
	}
}

func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestASecretFileIsItsOwnersAlone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, ok := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o640: false, 0o604: false, 0o620: false, 0o601: false} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := readSecretFile(path); (err == nil) != ok {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	if _, err := readSecretFile(path + "x"); err == nil {
		t.Error("a file that is not there reads")
	}
}

func TestServiceTokens(t *testing.T) {
	t.Parallel()
	sum := strings.Repeat("0a", 32)
	for text, want := range map[string]string{
		"":                                    "",
		"# nobody\n\n":                        "",
		"import " + sum + "\n":                "",
		"import " + sum + "\nworker " + sum:   "",
		"import hunter2\n":                    "line 1",
		"import " + sum + "\nworker\n":        "line 2",
		"import " + sum[:62] + "zz\n":         "line 1",
		"import " + sum + " more\n":           "line 1",
		"# a comment\nimport " + sum + "00\n": "line 2",
	} {
		path := filepath.Join(t.TempDir(), "services")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readServiceTokens(path)
		if want == "" && (err != nil || len(got) != strings.Count(text, " 0a")) || want != "" && (err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%q: got %d, %v, want %q", text, len(got), err, want)
		}
	}
	if got, err := readServiceTokens(""); err != nil || len(got) != 0 {
		t.Errorf("no file: got %v, %v", got, err)
	}
}

func TestIssuers(t *testing.T) {
	t.Parallel()
	one := Config{JWKSURI: "https://idp.example/jwks", TokenIssuer: "https://idp.example", TokenAudience: "medirecord"}
	with := func(change func(*Config)) Config {
		c := one
		change(&c)
		return c
	}
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"one in the environment":        {one, ""},
		"several in the file":           {Config{Issuers: []token.Issuer{{Issuer: "https://a.example", Audience: "m", JWKS: "https://a.example/k"}, {Issuer: "https://b.example", Audience: "m", JWKS: "https://b.example/k"}}}, ""},
		"none":                          {Config{}, "the sidecar knows no issuer"},
		"no audience":                   {with(func(c *Config) { c.TokenAudience = "" }), "an issuer needs MEDIRECORD_TOKEN_AUDIENCE"},
		"the development issuer":        {with(func(c *Config) { c.TokenIssuer = DevIssuer }), "development issuer"},
		"the development issuer in dev": {with(func(c *Config) { c.TokenIssuer, c.Env = DevIssuer, "dev" }), ""},
		"the development issuer in the file": {with(func(c *Config) {
			c.Issuers = []token.Issuer{{Issuer: DevIssuer, Audience: "m", JWKS: "https://a.example/k"}}
		}), "development issuer"},
		"keys over plain HTTP":        {with(func(c *Config) { c.JWKSURI = "http://idp.example/jwks" }), "must be an https URL"},
		"keys over plain HTTP in dev": {with(func(c *Config) { c.JWKSURI, c.Env = "http://127.0.0.1:1/jwks", "dev" }), ""},
		"ranges that are none":        {with(func(c *Config) { c.OutboundAllow = "hunter2" }), "MEDIRECORD_OUTBOUND_ALLOW must be"},
	} {
		v, err := newVerifier(&c.cfg, slog.New(slog.DiscardHandler), nil)
		if err == nil {
			v.Close()
		}
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}
