/* The floor of an acquisition: what it takes at least, with MIT's and OpenLDAP's own libraries.
 *
 * For each line of standard input: the host's AS exchange, a bind sealed by GSSAPI, the search for
 * the managed password, the account's AS exchange. No DNS, no configuration, nothing decoded;
 * answers with the microseconds it took.
 *
 * floor HOST_KEYTAB HOST_PRINCIPAL ACCOUNT_KEYTAB ACCOUNT_PRINCIPAL LDAP_URI BASE FILTER
 */
#include <krb5.h>
#include <ldap.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void check(long failed, const char *step)
{
    if (failed) {
        fprintf(stderr, "floor: %s: %ld\n", step, failed);
        exit(1);
    }
}

/* Every question of the mechanism has its default answer. */
static int interact(LDAP *ld, unsigned flags, void *defaults, void *prompts)
{
    (void)ld, (void)flags, (void)defaults, (void)prompts;
    return LDAP_SUCCESS;
}

static void get_ticket(const char *keytab_name, const char *principal_name, const char *cache_name)
{
    krb5_context context;
    krb5_principal principal;
    krb5_keytab keytab;
    krb5_creds credentials;
    krb5_ccache cache;

    check(krb5_init_context(&context), "context");
    check(krb5_parse_name(context, principal_name, &principal), "principal");
    check(krb5_kt_resolve(context, keytab_name, &keytab), "keytab");
    check(krb5_get_init_creds_keytab(context, &credentials, principal, keytab, 0, NULL, NULL),
          "AS exchange");
    check(krb5_cc_resolve(context, cache_name, &cache), "cache");
    check(krb5_cc_initialize(context, cache, principal), "cache");
    check(krb5_cc_store_cred(context, cache, &credentials), "cache");
    krb5_free_cred_contents(context, &credentials);
    krb5_cc_close(context, cache);
    krb5_kt_close(context, keytab);
    krb5_free_principal(context, principal);
    krb5_free_context(context);
}

static void read_password(const char *uri, const char *base, const char *filter)
{
    LDAP *ld;
    LDAPMessage *found;
    int version = LDAP_VERSION3;
    char *attributes[] = {"msDS-ManagedPassword", NULL};

    check(ldap_initialize(&ld, uri), "initialize");
    ldap_set_option(ld, LDAP_OPT_PROTOCOL_VERSION, &version);
    ldap_set_option(ld, LDAP_OPT_REFERRALS, LDAP_OPT_OFF);
    ldap_set_option(ld, LDAP_OPT_X_SASL_NOCANON, LDAP_OPT_ON);
    check(ldap_set_option(ld, LDAP_OPT_X_SASL_SECPROPS, "minssf=56"), "sealing");
    check(ldap_sasl_interactive_bind_s(ld, NULL, "GSSAPI", NULL, NULL, LDAP_SASL_QUIET, interact,
                                       NULL),
          "bind");
    check(ldap_search_ext_s(ld, base, LDAP_SCOPE_SUBTREE, filter, attributes, 0, NULL, NULL, NULL,
                            1, &found),
          "search");
    check(ldap_count_entries(ld, found) != 1, "entries");
    ldap_msgfree(found);
    ldap_unbind_ext_s(ld, NULL, NULL);
}

int main(int argc, char **argv)
{
    char line[16];

    check(argc != 8, "arguments");
    setenv("KRB5CCNAME", "MEMORY:floor-host", 1);
    while (fgets(line, sizeof line, stdin)) {
        struct timespec from, to;

        clock_gettime(CLOCK_MONOTONIC, &from);
        get_ticket(argv[1], argv[2], "MEMORY:floor-host");
        read_password(argv[5], argv[6], argv[7]);
        get_ticket(argv[3], argv[4], "MEMORY:floor-account");
        clock_gettime(CLOCK_MONOTONIC, &to);
        printf("%ld\n", (to.tv_sec - from.tv_sec) * 1000000 + (to.tv_nsec - from.tv_nsec) / 1000);
        fflush(stdout);
    }
    return 0;
}
