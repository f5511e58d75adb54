// Ask a web server who we are: node whoami_http.js HOST. npm package: kerberos.
const http = require("node:http");
const kerberos = require("kerberos");

async function main(host) {
  const client = await kerberos.initializeClient(`HTTP@${host}`, {
    mechOID: kerberos.GSS_MECH_OID_SPNEGO,
  });
  const headers = { Authorization: `Negotiate ${await client.step("")}` };
  http.get({ host, headers }, (answer) => {
    console.log(answer.statusCode);
    answer.pipe(process.stdout);
  });
}

main(process.argv[2]);
