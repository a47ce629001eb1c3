// SPDX-License-Identifier: Apache-2.0

package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/siem"
	"github.com/medirecord/medirecord/internal/stream"
)

// streamFiles writes what the example of docs/operate.md names, and returns the
// folder and the example with its paths.
func streamFiles(t *testing.T) (dir, example string) {
	t.Helper()
	dir = t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"siem-ca.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), "stream.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}),
		"stream.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), "hec.token": []byte("the-token\n"),
		"stream.hmac": []byte("0123456789abcdef0123456789abcdef\n"), "empty": nil, "two": []byte("a\nb\n"), "short": []byte("abc"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	page, err := os.ReadFile("../../docs/operate.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```yaml\n(source:.*?)```").FindSubmatch(page)
	if m == nil {
		t.Fatal("docs/operate.md has no example of a stream file")
	}
	return dir, strings.ReplaceAll(string(m[1]), "/etc/medirecord", dir)
}

func readStreams(t *testing.T, text string) (stream.Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "stream.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := (&Config{StreamFile: path}).readStreams()
	if err == nil {
		_, err = stream.New(cfg)
	}
	return cfg, err
}

func TestTheExampleOfAStreamFileReads(t *testing.T) {
	t.Parallel()
	_, example := streamFiles(t)
	cfg, err := readStreams(t, example)
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Sinks) != 3 || cfg.Source.URL != "https://medirecord.example" || cfg.Source.Host == "" {
		t.Fatalf("got %+v", cfg)
	}
	soc, splunk, otel := cfg.Sinks[0], cfg.Sinks[1], cfg.Sinks[2]
	if soc.Kind != stream.Syslog || soc.Address != "siem.example:6514" || soc.RootCAs == nil || soc.Certificate == nil || soc.Settle != 5*time.Second || soc.FromNow {
		t.Errorf("got %+v", soc)
	}
	if splunk.Token != "the-token" || string(splunk.HMACKey) != "0123456789abcdef0123456789abcdef" || splunk.Batch != 500 || splunk.Format != siem.MediRecord || splunk.RootCAs != nil {
		t.Errorf("got %+v", splunk)
	}
	if otel.Kind != stream.OTLP || otel.Address != "https://otel.example:4318/v1/logs" || otel.Format != siem.FHIR || !otel.FromNow {
		t.Errorf("got %+v", otel)
	}
}

func TestAStreamFileThatCannotBeIsRefused(t *testing.T) {
	t.Parallel()
	dir, example := streamFiles(t)
	if err := os.WriteFile(filepath.Join(dir, "open"), []byte("secret"), 0o644); err != nil { //nolint:gosec // that is the point
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, from, to, want string }{
		{"an unknown name", "    kind: otlp", "    kinds: otlp", "kinds is not one of ours"},
		{"an unknown kind", "kind: otlp", "kind: udp", "kind must be"},
		{"an unknown format", "format: fhir", "format: cef", "format must be"},
		{"two of one name", "name: splunk", "name: soc", "two sinks"},
		{"a name that is none", "name: soc", "name: SOC 1", "its name must be"},
		{"syslog without a certificate", "    cert: " + dir + "/stream.crt    # read anew for each connection\n    key: " + dir + "/stream.key\n    settle", "    settle", "mutual TLS"},
		{"syslog without a port", "siem.example:6514", "siem.example", "host:port"},
		{"syslog with a url", "address: siem.example:6514", "url: https://siem.example", "no url"},
		{"plain http", "https://splunk.example", "http://splunk.example", "like https://"},
		{"a password in the url", "https://splunk.example", "https://a:b@splunk.example", "without a user"},
		{"a certificate without its key", "    key: " + dir + "/stream.key\n    settle", "    settle", "belong together"},
		{"an authority that is none", "siem-ca.crt", "stream.key", "no certificate"},
		{"a secret that others may read", "/hec.token", "/open", "chmod 600"},
		{"an empty secret", "/hec.token", "/empty", "is empty"},
		{"a token of two lines", "/hec.token", "/two", "one line"},
		{"a short key", "/stream.hmac", "/short", "32 bytes"},
		{"a beginning that is none", "from: now", "from: yesterday", "beginning or now"},
		{"two documents", "sinks:", "---\nsinks:", "document"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			text := strings.Replace(example, tc.from, tc.to, 1)
			if text == example {
				t.Fatalf("the example does not hold %q", tc.from)
			}
			_, err := readStreams(t, text)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want it to say %q", err, tc.want)
			}
			if err != nil && (strings.Contains(err.Error(), "0123456789abcdef") || strings.Contains(err.Error(), "a:b@")) {
				t.Errorf("the error tells a secret: %v", err)
			}
		})
	}
	if _, err := readStreams(t, ""); err == nil {
		t.Error("a file without sinks reads")
	}
}
