// whoami sql HOST:PORT: log on to SQL Server as the container's gMSA and print its name there.
// whoami http URL: answer Negotiate and print the page.
package main

import (
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/jcmturner/gokrb5/v8/client"
	"github.com/jcmturner/gokrb5/v8/config"
	"github.com/jcmturner/gokrb5/v8/credentials"
	"github.com/jcmturner/gokrb5/v8/spnego"
	_ "github.com/microsoft/go-mssqldb"
	_ "github.com/microsoft/go-mssqldb/integratedauth/krb5"
)

func main() {
	if len(os.Args) != 3 {
		fail(fmt.Errorf("usage: whoami sql HOST:PORT | whoami http URL"))
	}
	ask := map[string]func(string) (string, error){"sql": askSQL, "http": askHTTP}[os.Args[1]]
	name, err := ask(os.Args[2])
	if err != nil {
		fail(err)
	}
	fmt.Println(name)
}

// The driver finds ticket and configuration by KRB5CCNAME and KRB5_CONFIG.
func askSQL(server string) (string, error) {
	url := "sqlserver://" + server + "?authenticator=krb5" + os.Getenv("SQL_OPTIONS")
	database, err := sql.Open("sqlserver", url)
	if err != nil {
		return "", err
	}
	defer database.Close()
	var name string
	err = database.QueryRow("select suser_sname()").Scan(&name)
	return name, err
}

// gokrb5 reads no environment: a program names both files, and makes a new client for new tickets.
func askHTTP(url string) (string, error) {
	configuration, err := config.Load(fromEnvironment("KRB5_CONFIG", "/etc/krb5.conf"))
	if err != nil {
		return "", err
	}
	cache, err := credentials.LoadCCache(fromEnvironment("KRB5CCNAME", "/run/credspec/krb5cc"))
	if err != nil {
		return "", err
	}
	kerberos, err := client.NewFromCCache(cache, configuration, client.DisablePAFXFAST(true))
	if err != nil {
		return "", err
	}
	defer kerberos.Destroy()
	answer, err := spnego.NewClient(kerberos, nil, "").Get(url)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s", answer.Status)
	}
	page, err := io.ReadAll(answer.Body)
	return string(page), err
}

func fromEnvironment(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
