// SPDX-License-Identifier: Apache-2.0

package coresdk

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"
)

// Defaults of Config.
const (
	DefaultAddr           = "localhost:50051"
	DefaultServiceName    = "unknown_service" // as OpenTelemetry names it
	DefaultTimeout        = time.Second
	DefaultConnectTimeout = 5 * time.Second
)

// Config says where the sidecar is and who asks it. The zero value is the
// safe default: localhost:50051, refused for want of mutual TLS.
type Config struct {
	// Addr is host:port, or unix:///path. "" means DefaultAddr.
	Addr string
	// TenantID is the practice the service works for. The sidecar is told; the
	// claims of a token always win.
	TenantID string
	// ServiceName and ServiceToken travel with every call. "" means
	// DefaultServiceName, and no token.
	ServiceName  string
	ServiceToken Secret
	// TLSCert, TLSKey and TLSCA are PEM files: all three, or none.
	TLSCert, TLSKey, TLSCA string
	// Dev allows plaintext on loopback. It changes nothing else.
	Dev bool
	// Audience is the audience a token must be meant for. "" leaves it to the
	// sidecar's configuration.
	Audience string
	// Timeout bounds every call. 0 means DefaultTimeout.
	Timeout time.Duration
	// ConnectTimeout bounds the first connection and its health check. 0 means
	// DefaultConnectTimeout.
	ConnectTimeout time.Duration
}

// Secret is a text that prints as [secret]. Convert it to string to use it.
type Secret string

const redacted = "[secret]"

// Format prints [secret] under every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// LogValue logs [secret].
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText encodes [secret], in JSON too.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// ConfigFromEnv returns the configuration of the environment, as the package
// comment lists it. It reports an error for a CORESDK_FAIL_MODE other than
// closed; everything else is checked by Dial and New.
func ConfigFromEnv() (Config, error) { return configFrom(os.Getenv) }

func configFrom(getenv func(string) string) (Config, error) {
	// The published SDK fails open unless told otherwise. Whoever sets "open"
	// must learn at start-up that it does not happen, rather than believe it.
	if mode := getenv("CORESDK_FAIL_MODE"); mode != "" && mode != "closed" {
		return Config{}, fmt.Errorf("coresdk: CORESDK_FAIL_MODE is %.20q, but this SDK only fails closed: "+
			"without the sidecar nobody can tell who is calling, so nobody is let in; set it to closed, or unset it", mode)
	}
	return Config{
		Addr:         getenv("CORESDK_SIDECAR_ADDR"),
		TenantID:     getenv("CORESDK_TENANT_ID"),
		ServiceName:  getenv("CORESDK_SERVICE_NAME"),
		ServiceToken: Secret(getenv("CORESDK_SERVICE_TOKEN")),
		TLSCert:      getenv("CORESDK_TLS_CERT"),
		TLSKey:       getenv("CORESDK_TLS_KEY"),
		TLSCA:        getenv("CORESDK_TLS_CA"),
		Dev:          getenv("CORESDK_ENV") == "dev",
	}, nil
}

// checked returns the configuration with its defaults filled in, or says what
// is wrong with it.
func (c Config) checked() (Config, error) {
	c.Addr = cmp.Or(c.Addr, DefaultAddr)
	c.ServiceName = cmp.Or(c.ServiceName, DefaultServiceName)
	c.Timeout = cmp.Or(c.Timeout, DefaultTimeout)
	c.ConnectTimeout = cmp.Or(c.ConnectTimeout, DefaultConnectTimeout)
	if c.Timeout < 0 || c.ConnectTimeout < 0 {
		return c, errors.New("coresdk: Timeout and ConnectTimeout must not be negative")
	}
	// gRPC would refuse each call for such a header; better to refuse the start.
	if !printable(c.ServiceName) {
		return c, errors.New("coresdk: CORESDK_SERVICE_NAME (Config.ServiceName) must be printable ASCII")
	}
	if !printable(string(c.ServiceToken)) {
		return c, errors.New("coresdk: CORESDK_SERVICE_TOKEN (Config.ServiceToken) must be printable ASCII")
	}
	return c, c.checkTLSFiles()
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}
