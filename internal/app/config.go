// SPDX-License-Identifier: Apache-2.0

// Package app wires the parts together: configuration, opening, serving,
// closing, and the development server. It decides nothing about patients.
package app

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/medirecord/medirecord/internal/token"
)

// Config is the whole configuration. Each field is read from the environment
// variable of its `env` tag first and from medirecord.yaml, under its `yaml`
// name, second. Unknown names of ours are refused in both. A field with
// `secret` prints redacted.
type Config struct {
	// SidecarAddr is where the sidecar is: host:port, or unix:///path.
	SidecarAddr string `env:"CORESDK_SIDECAR_ADDR" yaml:"sidecar_addr"`
	// FailMode must be closed.
	FailMode string `env:"CORESDK_FAIL_MODE" yaml:"fail_mode"`
	// JWKSURI is the key set of the one issuer that fits in the environment.
	JWKSURI string `env:"CORESDK_JWKS_URI" yaml:"jwks_uri"`
	// TenantID is the practice of a token without one, while it is the only one.
	TenantID string `env:"CORESDK_TENANT_ID" yaml:"tenant_id"`
	// Env is dev for development only.
	Env string `env:"CORESDK_ENV" yaml:"env"`
	// TLSCert, TLSKey and TLSCA are PEM files for mutual TLS with the sidecar.
	TLSCert string `env:"CORESDK_TLS_CERT" yaml:"tls_cert"`
	TLSKey  string `env:"CORESDK_TLS_KEY" yaml:"tls_key"`
	TLSCA   string `env:"CORESDK_TLS_CA" yaml:"tls_ca"`

	// TokenIssuer and TokenAudience are `iss` and `aud` of the one issuer.
	TokenIssuer   string `env:"MEDIRECORD_TOKEN_ISSUER" yaml:"token_issuer"`
	TokenAudience string `env:"MEDIRECORD_TOKEN_AUDIENCE" yaml:"token_audience"`
	// Issuers are several issuers; only in the file.
	Issuers []token.Issuer `yaml:"issuers"`

	// DatabaseURL is the clinical database as medirecord_app.
	DatabaseURL string `env:"MEDIRECORD_DATABASE_URL" yaml:"database_url" secret:"url"`
	// TrailDatabaseURL is the clinical database as medirecord_trail.
	TrailDatabaseURL string `env:"MEDIRECORD_TRAIL_DATABASE_URL" yaml:"trail_database_url" secret:"url"`
	// KeystoreDatabaseURL is the key store as medirecord_keys.
	KeystoreDatabaseURL string `env:"MEDIRECORD_KEYSTORE_DATABASE_URL" yaml:"keystore_database_url" secret:"url"`
	// WorkerDatabaseURL is the clinical database as medirecord_worker.
	WorkerDatabaseURL string `env:"MEDIRECORD_WORKER_DATABASE_URL" yaml:"worker_database_url" secret:"url"`
	// SealerDatabaseURL and AuditorDatabaseURL are the clinical database as
	// medirecord_sealer, which seals the trail, and as medirecord_auditor, which
	// reads all of it to export, verify and stream it.
	SealerDatabaseURL  string `env:"MEDIRECORD_SEALER_DATABASE_URL" yaml:"sealer_database_url" secret:"url"`
	AuditorDatabaseURL string `env:"MEDIRECORD_AUDITOR_DATABASE_URL" yaml:"auditor_database_url" secret:"url"`
	// RetentionDatabaseURL is the clinical database as medirecord_retention, which
	// drops months of the trail that are older than the policy.
	RetentionDatabaseURL string `env:"MEDIRECORD_RETENTION_DATABASE_URL" yaml:"retention_database_url" secret:"url"`
	// TrailRetention is how many years the trail is kept: 6 at least, which is
	// also what 0 means.
	TrailRetention int `env:"MEDIRECORD_TRAIL_RETENTION_YEARS" yaml:"trail_retention_years"`
	// MigrateDatabaseURL and MigrateKeystoreURL are the two databases as
	// medirecord_migrator.
	MigrateDatabaseURL string `env:"MEDIRECORD_MIGRATE_DATABASE_URL" yaml:"migrate_database_url" secret:"url"`
	MigrateKeystoreURL string `env:"MEDIRECORD_MIGRATE_KEYSTORE_URL" yaml:"migrate_keystore_url" secret:"url"`
	// BootstrapURL is a role that may create roles and databases; only for
	// `medirecord migrate`, the first time.
	BootstrapURL string `env:"MEDIRECORD_BOOTSTRAP_URL" yaml:"bootstrap_url" secret:"url"`

	// ContextKeyFile holds the key that signs database contexts. The sidecar and
	// `migrate` read it, and nobody else.
	ContextKeyFile string `env:"MEDIRECORD_CONTEXT_KEY_FILE" yaml:"context_key_file"`
	// SidecarState is the sidecar's file of revocations and grants.
	SidecarState string `env:"MEDIRECORD_SIDECAR_STATE" yaml:"sidecar_state"`
	// SidecarListen is where the sidecar listens; several, separated by commas.
	SidecarListen string `env:"MEDIRECORD_SIDECAR_LISTEN" yaml:"sidecar_listen"`
	// SidecarGroup may use the sidecar's unix socket: the API's group, which must
	// not be able to read the context key.
	SidecarGroup string `env:"MEDIRECORD_SIDECAR_GROUP" yaml:"sidecar_group"`
	// Policy is a .rego file or a directory of one; "" is the built-in policy,
	// builtin:hospital the other one.
	Policy string `env:"MEDIRECORD_POLICY" yaml:"policy"`
	// PolicyDir is CoreSDK's name for it.
	PolicyDir string `env:"CORESDK_POLICY_DIR" yaml:"policy_dir"`
	// ServiceTokens is the sidecar's file of services without a certificate:
	// lines of name and SHA-256 in hex.
	ServiceTokens string `env:"MEDIRECORD_SERVICE_TOKENS" yaml:"service_tokens"`
	// ServiceTokenFile is a service's own token, where it has no certificate.
	ServiceTokenFile string `env:"MEDIRECORD_SERVICE_TOKEN_FILE" yaml:"service_token_file"`
	// GrantMinutes is how long a break-glass grant lasts, at most 240.
	GrantMinutes int `env:"MEDIRECORD_GRANT_MINUTES" yaml:"grant_minutes"`
	// StrictReads lets the database give a patient's rows only against an entry
	// of the trail that is committed already; broken glass and exports are so
	// whatever it says.
	StrictReads bool `env:"MEDIRECORD_STRICT_READS" yaml:"strict_reads"`
	// PatientsAnHour is how many different patients one person may ask for within
	// an hour before that is an alarm; -1 for no limit.
	PatientsAnHour int `env:"MEDIRECORD_PATIENTS_AN_HOUR" yaml:"patients_an_hour"`
	// OutboundAllow lists private ranges that fetches may reach.
	OutboundAllow string `env:"MEDIRECORD_OUTBOUND_ALLOW" yaml:"outbound_allow"`

	// TrailOrigin is the name of the log, such as medirecord.example/audit; an
	// epoch's number is put behind it. It is in every checkpoint for ever.
	TrailOrigin string `env:"MEDIRECORD_TRAIL_ORIGIN" yaml:"trail_origin"`
	// TrailKeyFile holds the keys that sign checkpoints, one a line, as
	// `medirecord audit key` makes them; while one is replaced, both.
	TrailKeyFile string `env:"MEDIRECORD_TRAIL_KEY_FILE" yaml:"trail_key_file"`
	// SealerState is the sealer's own memory of the last head it signed: a file
	// outside the database.
	SealerState string `env:"MEDIRECORD_SEALER_STATE" yaml:"sealer_state"`
	// TrailPolicy is a C2SP tlog-policy file: the log's keys, its witnesses, and
	// how many of them must cosign.
	TrailPolicy string `env:"MEDIRECORD_TRAIL_POLICY" yaml:"trail_policy"`
	// TrailSinks are write-once places for checkpoints and tiles, separated by
	// commas: file:///directory or s3://bucket/prefix?endpoint=…
	TrailSinks string `env:"MEDIRECORD_TRAIL_SINKS" yaml:"trail_sinks"`
	// StreamFile names the SIEMs and collectors that the sealed trail goes to.
	StreamFile string `env:"MEDIRECORD_STREAM_FILE" yaml:"stream_file"`

	// KeyKeeper is the URL of the secrets manager: file:///directory in dev.
	KeyKeeper string `env:"MEDIRECORD_KEY_KEEPER" yaml:"key_keeper"`
	// KeyCache is how long unwrapped patient keys may serve without the keeper.
	KeyCache time.Duration `env:"MEDIRECORD_KEY_CACHE" yaml:"key_cache"`

	// Listen and OpsListen are the API's two listeners.
	Listen    string `env:"MEDIRECORD_LISTEN" yaml:"listen"`
	OpsListen string `env:"MEDIRECORD_OPS_LISTEN" yaml:"ops_listen"`
	// WorkerOpsListen is the worker's operations listener; "" is none.
	WorkerOpsListen string `env:"MEDIRECORD_WORKER_OPS_LISTEN" yaml:"worker_ops_listen"`
	// HTTPCert and HTTPKey are the API's certificate; without them it listens
	// on loopback only, for a proxy on the same machine.
	HTTPCert string `env:"MEDIRECORD_HTTP_TLS_CERT" yaml:"http_tls_cert"`
	HTTPKey  string `env:"MEDIRECORD_HTTP_TLS_KEY" yaml:"http_tls_key"`
	// TrustedProxies may name the client's address in X-Forwarded-For.
	TrustedProxies string `env:"MEDIRECORD_TRUSTED_PROXIES" yaml:"trusted_proxies"`
	// LogLevel is debug, info, warn or error.
	LogLevel string `env:"CORESDK_LOG_LEVEL" yaml:"log_level"`
}

// ConfigFile is read from the working directory unless MEDIRECORD_CONFIG names
// another.
const ConfigFile = "medirecord.yaml"

// Names of our variables that are not part of Config.
var otherNames = []string{"MEDIRECORD_READY_FILE", "MEDIRECORD_CONFIG", "MEDIRECORD_PG_BIN", "MEDIRECORD_TEST_DATABASE_URL", "MEDIRECORD_PROFILE"}

// LoadConfig reads the environment and the file. It reports unknown names and
// values that do not read, by name and never by value.
func LoadConfig(environ []string) (*Config, error) {
	env := map[string]string{}
	for _, kv := range environ {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	c := &Config{}
	if err := c.readFile(env["MEDIRECORD_CONFIG"]); err != nil {
		return nil, err
	}
	if v := env["CORESDK_JWKS_URL"]; v != "" && env["CORESDK_JWKS_URI"] == "" {
		env["CORESDK_JWKS_URI"] = v // the other spelling of the reference page
	}
	known, err := c.readEnv(env)
	if err != nil {
		return nil, err
	}
	for k := range env {
		if strings.HasPrefix(k, "MEDIRECORD_") && !slices.Contains(known, k) && !slices.Contains(otherNames, k) {
			return nil, fmt.Errorf("environment variable %s is not one of ours; `medirecord config check --help` lists them", k)
		}
	}
	return c, c.checkRanges()
}

// checkRanges refuses values that read but mean nothing, or more than is
// allowed: a key cache that never forgets, for instance. It names the setting
// and not the value.
func (c *Config) checkRanges() error {
	var level slog.Level
	switch {
	case c.GrantMinutes < 0 || c.GrantMinutes > 240:
		return errors.New("MEDIRECORD_GRANT_MINUTES must be 1 to 240, or 0 for the usual 60")
	case c.PatientsAnHour < -1:
		return errors.New("MEDIRECORD_PATIENTS_AN_HOUR must be a number of patients, 0 for the usual 300, or -1 for no limit")
	case c.TrailRetention != 0 && (c.TrailRetention < 6 || c.TrailRetention > 100):
		return errors.New("MEDIRECORD_TRAIL_RETENTION_YEARS must be 6 to 100: the trail is kept six years at least")
	case c.KeyCache < 0:
		return errors.New("MEDIRECORD_KEY_CACHE must be a duration such as 5m or 30s")
	case c.LogLevel != "" && level.UnmarshalText([]byte(c.LogLevel)) != nil:
		return errors.New("CORESDK_LOG_LEVEL must be debug, info, warn or error")
	}
	return nil
}

func (c *Config) readFile(path string) error {
	explicit := path != ""
	if !explicit {
		path = ConfigFile
	}
	b, err := os.ReadFile(path) //nolint:gosec // the operator's own file
	if errors.Is(err, fs.ErrNotExist) && !explicit {
		return nil
	}
	if err != nil {
		return fmt.Errorf("configuration file: %w", err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("configuration file %s: %w", path, withoutValues(err))
	}
	if !errors.Is(dec.Decode(new(any)), io.EOF) {
		return fmt.Errorf("configuration file %s: it holds more than one document, and only the first would count", path)
	}
	return nil
}

// withoutValues keeps the lines and the names of a YAML error and drops what
// it quotes of the file.
func withoutValues(err error) error {
	var te *yaml.TypeError
	if !errors.As(err, &te) {
		return errors.New("it is not YAML of lines like `listen: 127.0.0.1:8080`; `medirecord config check --help` lists the names")
	}
	var lines []string
	for _, e := range te.Errors {
		where, _, _ := strings.Cut(e, ": ")
		switch {
		case strings.Contains(e, "cannot unmarshal "):
			lines = append(lines, where+": "+wanted(e[strings.LastIndex(e, " into ")+len(" into "):]))
		default:
			head, _, _ := strings.Cut(e, " not found in type ") // a type of ours says nothing to an operator
			if name, ok := strings.CutPrefix(head, where+": field "); ok {
				head = where + ": " + name + " is not one of ours; `medirecord config check --help` lists the names"
			}
			lines = append(lines, head)
		}
	}
	return errors.New(strings.Join(lines, "; "))
}

func wanted(goType string) string {
	switch goType {
	case "int":
		return "want a whole number"
	case "time.Duration":
		return "want a duration such as 5m or 30s"
	case "string":
		return "want a text"
	case "bool":
		return "want true or false"
	}
	return "want another form"
}

func (c *Config) readEnv(env map[string]string) (known []string, err error) {
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("env")
		if name == "" {
			continue
		}
		known = append(known, name)
		text, ok := env[name]
		if !ok || text == "" {
			continue
		}
		f := v.Field(i)
		switch f.Interface().(type) {
		case string:
			f.SetString(text)
		case int:
			n, err := strconv.Atoi(text)
			if err != nil {
				return nil, fmt.Errorf("%s must be a whole number", name)
			}
			f.SetInt(int64(n))
		case bool:
			on, err := strconv.ParseBool(text)
			if err != nil {
				return nil, fmt.Errorf("%s must be true or false", name)
			}
			f.SetBool(on)
		case time.Duration:
			d, err := time.ParseDuration(text)
			if err != nil || d < 0 {
				return nil, fmt.Errorf("%s must be a duration such as 5m or 30s", name)
			}
			f.SetInt(int64(d))
		}
	}
	return known, nil
}

// Dev reports development mode.
func (c *Config) Dev() bool { return c.Env == "dev" }

// Setting is a line of `medirecord config check`.
type Setting struct{ Name, Env, Value string }

// Settings returns what will run, secrets redacted.
func (c *Config) Settings() []Setting {
	var out []Setting
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		f := v.Type().Field(i)
		text := shown(fmt.Sprint(v.Field(i).Interface()), f.Tag.Get("secret") == "url")
		if f.Name == "Issuers" {
			text = strconv.Itoa(len(c.Issuers)) + " in the file"
		}
		out = append(out, Setting{Name: f.Tag.Get("yaml"), Env: f.Tag.Get("env"), Value: text})
	}
	return out
}

// shown is the value without what could be a password: of any URL the one
// beside the user's name, and those that PostgreSQL takes as parameters. What
// should be a URL and is none is not shown at all.
func shown(text string, mustBeURL bool) string {
	u, err := url.Parse(text)
	switch {
	case text == "":
		return ""
	case err != nil || mustBeURL && u.Scheme == "":
		if mustBeURL || strings.Contains(text, "@") {
			return "[not a URL]"
		}
		return text
	case u.User == nil && u.RawQuery == "":
		return text
	}
	if u.User != nil && u.Host != "" && !mustBeURL { // a token may stand in the place of the name
		u.User = url.UserPassword("xxxxx", "xxxxx")
	}
	q := u.Query()
	for name := range q {
		if n := strings.ToLower(name); strings.Contains(n, "pass") || strings.Contains(n, "secret") || strings.Contains(n, "token") || strings.Contains(n, "key") {
			q.Set(name, "xxxxx")
		}
	}
	u.RawQuery = q.Encode()
	return u.Redacted()
}

// need reports which of the named settings are missing.
func (c *Config) need(what string, names ...string) error {
	v := reflect.ValueOf(c).Elem()
	var missing []string
	for i := range v.NumField() {
		env := v.Type().Field(i).Tag.Get("env")
		if slices.Contains(names, env) && v.Field(i).IsZero() {
			missing = append(missing, env)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s needs %s: set it in the environment or in %s", what, strings.Join(missing, ", "), ConfigFile)
	}
	return nil
}

// checkFailMode refuses anything but closed: an unset mode is not a choice
// anybody made.
func (c *Config) checkFailMode() error {
	if c.FailMode != "closed" {
		return errors.New("CORESDK_FAIL_MODE must be closed: health data is never served without the sidecar; set CORESDK_FAIL_MODE=closed")
	}
	return nil
}

func prefixes(name, text string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("%s must be addresses or ranges such as 10.0.0.0/8, separated by commas", name)
		}
		out = append(out, p)
	}
	return out, nil
}
