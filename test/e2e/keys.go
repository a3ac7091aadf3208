package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// authority signs the certificates of the cluster's parts.
type authority struct {
	dir         string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// newAuthority makes an authority, and a key for service accounts' tokens,
// whose files go to dir.
func newAuthority(dir string) (*authority, error) {
	a := &authority{dir: dir, certificate: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "e2e"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}}
	var err error
	if a.key, err = a.newKey("ca"); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, a.certificate, a.certificate, a.key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("sign the authority's certificate: %w", err)
	}
	if err := writePEM(a.path("ca.crt"), "CERTIFICATE", der); err != nil {
		return nil, err
	}
	tokens, err := a.newKey("sa")
	if err != nil {
		return nil, err
	}
	public, err := x509.MarshalPKIXPublicKey(tokens.Public())
	if err != nil {
		return nil, fmt.Errorf("write the key of service accounts: %w", err)
	}
	return a, writePEM(a.path("sa.pub"), "PUBLIC KEY", public)
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) newKey(name string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key for %s: %w", name, err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make a key for %s: %w", name, err)
	}
	return key, writePEM(a.path(name+".key"), "EC PRIVATE KEY", der)
}

// sign writes NAME.crt and NAME.key for a server at the addresses, or for a
// client if there are none.
func (a *authority) sign(name string, subject pkix.Name, addresses ...net.IP) error {
	key, err := a.newKey(name)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return fmt.Errorf("sign a certificate for %s: %w", name, err)
	}
	usage := x509.ExtKeyUsageClientAuth
	if len(addresses) > 0 {
		usage = x509.ExtKeyUsageServerAuth
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: subject, IPAddresses: addresses,
		NotBefore: a.certificate.NotBefore, NotAfter: a.certificate.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("sign a certificate for %s: %w", name, err)
	}
	return writePEM(a.path(name+".crt"), "CERTIFICATE", der)
}

// kubeconfig signs a client's certificate, and writes and returns NAME.kubeconfig.
func (a *authority) kubeconfig(name, user string, groups ...string) (string, error) {
	if err := a.sign(name, pkix.Name{CommonName: user, Organization: groups}); err != nil {
		return "", err
	}
	config := api.NewConfig()
	config.Clusters["e2e"] = &api.Cluster{Server: serverURL, CertificateAuthority: a.path("ca.crt")}
	config.AuthInfos["e2e"] = &api.AuthInfo{ClientCertificate: a.path(name + ".crt"), ClientKey: a.path(name + ".key")}
	config.Contexts["e2e"] = &api.Context{Cluster: "e2e", AuthInfo: "e2e"}
	config.CurrentContext = "e2e"
	file := a.path(name + ".kubeconfig")
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		return "", fmt.Errorf("write the kubeconfig of %s: %w", name, err)
	}
	return file, nil
}

func writePEM(file, kind string, der []byte) error {
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		return fmt.Errorf("write a key: %w", err)
	}
	return nil
}
