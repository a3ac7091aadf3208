package metrics

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// certificate makes a self-signed one for a name, and writes NAME.pem and
// NAME.key to dir.
func certificate(t *testing.T, dir, name string, serial int64) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, name+".pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	writeFile(t, filepath.Join(dir, name+".key"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key"))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func TestTLSClientCertificatesAndPasswords(t *testing.T) {
	dir := t.TempDir()
	server, client, stranger := certificate(t, dir, "server", 1), certificate(t, dir, "client", 2), certificate(t, dir, "stranger", 3)
	file := filepath.Join(dir, "web.yml")
	const tlsPart = "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: client.pem\n"
	// bcrypt of "secret", at the least cost.
	const users = "basic_auth_users:\n  ada: $2a$04$3A9TNgIQNxXZazDwdi73CusiB/KZS36CZgwHCG6nmZYmamadJFwSu\n"
	writeFile(t, file, tlsPart)
	if err := CheckWebConfig(file); err != nil {
		t.Fatal(err)
	}
	url := serveSecured(t, file)
	get := func(certificate tls.Certificate, user, password string) (status int, serial int64) {
		pool := x509.NewCertPool()
		for _, name := range []string{"server.pem"} {
			text, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			pool.AppendCertsFromPEM(text)
		}
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}}
		defer transport.CloseIdleConnections()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/healthz", nil)
		if err != nil {
			t.Fatal(err)
		}
		if user != "" {
			request.SetBasicAuth(user, password)
		}
		response, err := (&http.Client{Transport: transport}).Do(request)
		if err != nil {
			return 0, 0
		}
		defer response.Body.Close() //nolint:errcheck // only the status matters
		return response.StatusCode, response.TLS.PeerCertificates[0].SerialNumber.Int64()
	}
	if status, serial := get(client, "", ""); status != 200 || serial != server.Leaf.SerialNumber.Int64() {
		t.Errorf("a client that is known: %d, certificate %d", status, serial)
	}
	if status, _ := get(stranger, "", ""); status != 0 {
		t.Errorf("a client that is not: %d", status)
	}
	if status, _ := get(tls.Certificate{}, "", ""); status != 0 {
		t.Errorf("a client without a certificate: %d", status)
	}
	// A new certificate and new users count without a restart.
	certificate(t, dir, "server", 4)
	writeFile(t, file, tlsPart+users)
	if status, serial := get(client, "ada", "secret"); status != 200 || serial != 4 {
		t.Errorf("a user: %d, certificate %d", status, serial)
	}
	for user, password := range map[string]string{"ada": "wrong", "eve": "secret", "": ""} {
		if status, _ := get(client, user, password); status != http.StatusUnauthorized {
			t.Errorf("user %q with password %q: %d", user, password, status)
		}
	}
}

// serveSecured serves until the test ends.
func serveSecured(t *testing.T, file string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- fullServer().ServeSecured(ctx, listener, file) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return "https://" + listener.Addr().String()
}

func TestABadWebConfigurationIsRefused(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"unknown field":      "tls_server_confg: {}\n",
		"no such key":        "tls_server_config: {cert_file: a.pem, key_file: b.key}\n",
		"a password in text": "basic_auth_users: {ada: secret}\n",
	} {
		file := filepath.Join(dir, "web.yml")
		writeFile(t, file, text)
		if err := CheckWebConfig(file); err == nil || !strings.Contains(err.Error(), "web.yml") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := CheckWebConfig(""); err != nil {
		t.Errorf("no file: %v", err)
	}
}

func TestWhoMayReadPages(t *testing.T) {
	s := fullServer()
	s.SetAccess(func(r *http.Request) (int, string) {
		switch r.Header.Get("Authorization") {
		case "Bearer good":
			return http.StatusOK, ""
		case "":
			return http.StatusUnauthorized, "who are you"
		default:
			return http.StatusForbidden, "not you"
		}
	})
	for path, guarded := range map[string]bool{"/metrics": true, "/report": true, "/": true, "/healthz": false, "/readyz": false} {
		for token, want := range map[string]int{"": 401, "Bearer bad": 403, "Bearer good": 200} {
			if !guarded {
				want = 200
			}
			response, body := get(t, s, path, "Authorization", token)
			if response.Code != want || (want == 401) != (response.Header().Get("WWW-Authenticate") == "Bearer") || want >= 400 && len(body) > 20 {
				t.Errorf("%s with %q: %d %q, want %d", path, token, response.Code, body, want)
			}
		}
	}
	s.SetAccess(nil)
	if response, _ := get(t, s, "/metrics"); response.Code != 200 {
		t.Error("nobody judges any more, and nobody may read")
	}
}

func writeFile(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
