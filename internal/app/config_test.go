// SPDX-License-Identifier: Apache-2.0

package app

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/medirecord/medirecord/internal/token"
)

// file writes a configuration file and returns the variable that names it.
func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "medirecord.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return "MEDIRECORD_CONFIG=" + path
}

func TestLoadConfig(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		env  []string
		file string
		want Config
	}{
		"nothing":                        {want: Config{}},
		"the guide's four variables":     {env: []string{"CORESDK_SIDECAR_ADDR=a:1", "CORESDK_FAIL_MODE=closed", "CORESDK_JWKS_URI=https://j", "CORESDK_TENANT_ID=p"}, want: Config{SidecarAddr: "a:1", FailMode: "closed", JWKSURI: "https://j", TenantID: "p"}},
		"the other spelling of JWKS":     {env: []string{"CORESDK_JWKS_URL=https://j"}, want: Config{JWKSURI: "https://j"}},
		"the guide's spelling wins":      {env: []string{"CORESDK_JWKS_URL=https://k", "CORESDK_JWKS_URI=https://j"}, want: Config{JWKSURI: "https://j"}},
		"a file":                         {file: "sidecar_addr: a:1\nkey_cache: 90s\ngrant_minutes: 30\n", want: Config{SidecarAddr: "a:1", KeyCache: 90 * time.Second, GrantMinutes: 30}},
		"the environment before a file":  {env: []string{"CORESDK_SIDECAR_ADDR=b:2", "MEDIRECORD_KEY_CACHE=3s"}, file: "sidecar_addr: a:1\nkey_cache: 90s\nlisten: l:1\n", want: Config{SidecarAddr: "b:2", KeyCache: 3 * time.Second, Listen: "l:1"}},
		"an empty variable is not there": {env: []string{"CORESDK_SIDECAR_ADDR="}, file: "sidecar_addr: a:1\n", want: Config{SidecarAddr: "a:1"}},
		"an empty file":                  {file: "\n# nothing\n", want: Config{}},
		"the longest grant":              {env: []string{"MEDIRECORD_GRANT_MINUTES=240"}, want: Config{GrantMinutes: 240}},
		"strict reads":                   {env: []string{"MEDIRECORD_STRICT_READS=true"}, want: Config{StrictReads: true}},
		"strict reads in a file":         {file: "strict_reads: true\n", want: Config{StrictReads: true}},
		"the environment takes it back":  {env: []string{"MEDIRECORD_STRICT_READS=false"}, file: "strict_reads: true\n", want: Config{}},
		"a value with an equals sign":    {env: []string{"MEDIRECORD_DATABASE_URL=postgres://u@/d?host=/s"}, want: Config{DatabaseURL: "postgres://u@/d?host=/s"}},
		"several issuers": {
			file: "issuers:\n  - issuer: https://one\n    audience: a\n  - issuer: https://two\n    audience: b\n",
			want: Config{Issuers: []token.Issuer{{Issuer: "https://one", Audience: "a"}, {Issuer: "https://two", Audience: "b"}}},
		},
		"names of ours that are no settings": {env: []string{"MEDIRECORD_READY_FILE=/r", "MEDIRECORD_PG_BIN=/b", "MEDIRECORD_TEST_DATABASE_URL=x", "MEDIRECORD_PROFILE=p"}, want: Config{}},
		"names of others":                    {env: []string{"CORESDK_SERVICE_NAME=x", "HOME=/", "MEDIRECORDER=1", "no equals sign"}, want: Config{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := c.env
			if c.file != "" {
				env = append(env, file(t, c.file))
			}
			got, err := LoadConfig(env)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&c.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestLoadConfigRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		env, file, want string
	}{
		"an unknown variable":         {env: "MEDIRECORD_LISTN=hunter2", want: "MEDIRECORD_LISTN is not one of ours"},
		"a name in lower case":        {env: "MEDIRECORD_listen=hunter2", want: "MEDIRECORD_listen is not one of ours"},
		"a file that is not there":    {env: "MEDIRECORD_CONFIG=/nowhere/x.yaml", want: "configuration file: open /nowhere/x.yaml"},
		"an unknown name in the file": {file: "listn: hunter2\n", want: "line 1: listn is not one of ours"},
		"an unknown name of an issuer": {
			file: "issuers:\n  - issuer: https://one\n    jwk: hunter2\n", want: "line 3: jwk is not one of ours",
		},
		"several mistakes":             {file: "listn: hunter2\nopslisten: hunter2\n", want: "line 1: listn is not one of ours; `medirecord config check --help` lists the names; line 2: opslisten"},
		"no number":                    {env: "MEDIRECORD_GRANT_MINUTES=hunter2", want: "MEDIRECORD_GRANT_MINUTES must be a whole number"},
		"half a number":                {env: "MEDIRECORD_GRANT_MINUTES=1.5", want: "MEDIRECORD_GRANT_MINUTES must be a whole number"},
		"no number in the file":        {file: "grant_minutes: hunter2\n", want: "line 1: want a whole number"},
		"a value like the message":     {file: "grant_minutes: 'x` into hunter2'\n", want: "line 1: want a whole number"},
		"a list for a text":            {file: "listen: [hunter2]\n", want: "line 1: want a text"},
		"neither true nor false":       {env: "MEDIRECORD_STRICT_READS=hunter2", want: "MEDIRECORD_STRICT_READS must be true or false"},
		"the same in the file":         {file: "strict_reads: hunter2\n", want: "line 1: want true or false"},
		"no duration":                  {env: "MEDIRECORD_KEY_CACHE=hunter2", want: "MEDIRECORD_KEY_CACHE must be a duration"},
		"no duration in the file":      {file: "key_cache: hunter2\n", want: "line 1: want a duration"},
		"a cache that never forgets":   {env: "MEDIRECORD_KEY_CACHE=-1s", want: "MEDIRECORD_KEY_CACHE must be a duration"},
		"one in the file":              {file: "key_cache: -1s\n", want: "MEDIRECORD_KEY_CACHE must be a duration"},
		"a grant for ever":             {env: "MEDIRECORD_GRANT_MINUTES=241", want: "MEDIRECORD_GRANT_MINUTES must be 1 to 240"},
		"a grant that has ended":       {file: "grant_minutes: -1\n", want: "MEDIRECORD_GRANT_MINUTES must be 1 to 240"},
		"an unknown log level":         {env: "CORESDK_LOG_LEVEL=hunter2", want: "CORESDK_LOG_LEVEL must be debug, info, warn or error"},
		"no YAML":                      {file: "a: b: hunter2\n", want: "it is not YAML"},
		"YAML of another form":         {file: "- hunter2\n", want: "line 1: want another form"},
		"a second document":            {file: "listen: l:1\n---\nhunter2: x\n", want: "more than one document"},
		"the same name twice":          {file: "listen: l:1\nlisten: hunter2\n", want: `line 2: mapping key "listen" already defined`},
		"a document that does not end": {file: "listen: 'hunter2\n", want: "it is not YAML"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := []string{c.env}
			if c.file != "" {
				env = append(env, file(t, c.file))
			}
			got, err := LoadConfig(env)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, %v, want %s", got, err, c.want)
			}
			for _, not := range []string{"hunter2", "app.Config", "token.Issuer", "!!"} {
				if strings.Contains(err.Error(), not) {
					t.Errorf("%v says %s", err, not)
				}
			}
		})
	}
}

// Each setting has a name in the environment and in the file, and none twice;
// each is read from both.
func TestEachSettingIsReadFromBoth(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	typ := reflect.TypeFor[Config]()
	for i := range typ.NumField() {
		f := typ.Field(i)
		env, name := f.Tag.Get("env"), f.Tag.Get("yaml")
		if name == "" || seen[name] || env != "" && seen[env] || env == "" && f.Name != "Issuers" {
			t.Errorf("%s has the names %q and %q", f.Name, env, name)
		}
		seen[name], seen[env] = true, true
		value := map[string]string{"int": "7", "time.Duration": "7s", "string": "info"}[f.Type.String()]
		if value == "" || env == "" {
			continue
		}
		fromEnv, err := LoadConfig([]string{env + "=" + value})
		if err != nil {
			t.Fatal(err)
		}
		fromFile, err := LoadConfig([]string{file(t, name+": "+value+"\n")})
		if err != nil {
			t.Fatal(err)
		}
		if v := reflect.ValueOf(fromEnv).Elem().Field(i); v.IsZero() || !cmp.Equal(fromEnv, fromFile) {
			t.Errorf("%s is %v from the environment, %v from the file", f.Name, fromEnv, fromFile)
		}
	}
}

func TestSettingsShowNoPassword(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		"postgres://app:hunter2@db/med":                              "postgres://app:xxxxx@db/med",
		"postgres://app:hunter2@/med?host=/s":                        "postgres://app:xxxxx@/med?host=%2Fs",
		"postgres://app@db/med?password=hunter2&sslmode=verify-full": "postgres://app@db/med?password=xxxxx&sslmode=verify-full",
		"postgres://db/med?sslpassword=hunter2":                      "postgres://db/med?sslpassword=xxxxx",
		"host=db user=app password=hunter2":                          "[not a URL]",
		"postgres://app:hunter2@db:port/med":                         "[not a URL]",
		"postgres://db/med":                                          "postgres://db/med",
		"":                                                           "",
		"postgres://app:hunter2@db/med?application_name=x&PASSWORD=hunter2": "postgres://app:xxxxx@db/med?PASSWORD=xxxxx&application_name=x",
	} {
		if got := settingOf(t, Config{DatabaseURL: value}, "database_url"); got != want {
			t.Errorf("database_url: got %s, want %s", got, want)
		}
	}
	for value, want := range map[string]string{
		"file:///var/lib/keeper":                "file:///var/lib/keeper",
		"https://vault.example:8200/transit":    "https://vault.example:8200/transit",
		"https://hunter2@vault.example/x":       "https://xxxxx:xxxxx@vault.example/x",
		"https://me:hunter2@vault.example/x":    "https://xxxxx:xxxxx@vault.example/x",
		"https://vault.example/x?token=hunter2": "https://vault.example/x?token=xxxxx",
		"hunter2@vault: 7":                      "[not a URL]",
	} {
		if got := settingOf(t, Config{KeyKeeper: value}, "key_keeper"); got != want {
			t.Errorf("key_keeper: got %s, want %s", got, want)
		}
	}
	for _, value := range []string{"127.0.0.1:50051", "unix:///run/sidecar.sock", "unix:///run/a.sock,127.0.0.1:1", "localhost:1"} {
		if got := settingOf(t, Config{SidecarListen: value}, "sidecar_listen"); got != value {
			t.Errorf("sidecar_listen: got %s, want %s", got, value)
		}
	}
}

func settingOf(t *testing.T, c Config, name string) string {
	t.Helper()
	for _, s := range c.Settings() {
		if s.Name == name {
			return s.Value
		}
	}
	t.Fatalf("no setting %s", name)
	return ""
}

func TestNeedNamesAllThatIsMissing(t *testing.T) {
	t.Parallel()
	c := Config{SidecarAddr: "a:1"}
	err := c.need("serving", "CORESDK_SIDECAR_ADDR", "MEDIRECORD_DATABASE_URL", "MEDIRECORD_KEY_KEEPER")
	want := "serving needs MEDIRECORD_DATABASE_URL, MEDIRECORD_KEY_KEEPER: set it in the environment or in medirecord.yaml"
	if fmt.Sprint(err) != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := c.need("serving", "CORESDK_SIDECAR_ADDR"); err != nil {
		t.Error(err)
	}
}

func TestFailModeMustBeClosed(t *testing.T) {
	t.Parallel()
	for mode, ok := range map[string]bool{"closed": true, "": false, "open": false, "Closed": false, "closed ": false} {
		if err := (&Config{FailMode: mode}).checkFailMode(); (err == nil) != ok {
			t.Errorf("%q: %v", mode, err)
		}
	}
}

func TestPrefixes(t *testing.T) {
	t.Parallel()
	p := netip.MustParsePrefix
	for text, want := range map[string][]netip.Prefix{
		"":                          nil,
		" , ":                       nil,
		"10.0.0.0/8":                {p("10.0.0.0/8")},
		"192.0.2.7":                 {p("192.0.2.7/32")},
		"2001:db8::1":               {p("2001:db8::1/128")},
		"10.0.0.0/8, fd00::/8,::1":  {p("10.0.0.0/8"), p("fd00::/8"), p("::1/128")},
		"10.0.0.0/8 192.168.0.0/16": {p("10.0.0.0/8"), p("192.168.0.0/16")},
	} {
		got, err := prefixes("X", text)
		if err != nil || !cmp.Equal(got, want, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })) {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"hunter2", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/8,hunter2", "10.0.0.1:80", "fe80::1%eth0/64"} {
		got, err := prefixes("MEDIRECORD_X", text)
		if err == nil || !strings.HasPrefix(err.Error(), "MEDIRECORD_X must be addresses or ranges") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
}
