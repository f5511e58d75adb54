/* The floor of an acquisition: what it takes at least, with MIT's and OpenLDAP's own libraries.
 *
 * Each line of standard input names an account. After "cold", that is the host's AS exchange, a bind
 * sealed by GSSAPI, the search for the managed password, the account's AS exchange, each exchange of
 * two round trips, as libkrb5 has it; after "cold-once" the same with one round trip each; after
 * "held" the search on a connection that stays, and the account's exchange with one. No DNS, no
 * configuration, nothing decoded. Answers each line with the microseconds it took.
 *
 * floor cold|cold-once|held HOST_KEYTAB HOST_PRINCIPAL ACCOUNT_KEYTAB REALM LDAP_URI BASE
 */
#include <krb5.h>
#include <ldap.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int once;

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

/* Keys in memory are found at once, however many there are. */
static void load_keytab(krb5_context context, const char *file, const char *memory)
{
    krb5_keytab from, to;
    krb5_kt_cursor cursor;
    krb5_keytab_entry entry;

    check(krb5_kt_resolve(context, file, &from), "keytab");
    check(krb5_kt_resolve(context, memory, &to), "keytab");
    check(krb5_kt_start_seq_get(context, from, &cursor), "keytab");
    while (krb5_kt_next_entry(context, from, &entry, &cursor) == 0) {
        check(krb5_kt_add_entry(context, to, &entry), "keytab");
        krb5_free_keytab_entry_contents(context, &entry);
    }
    krb5_kt_end_seq_get(context, from, &cursor);
    krb5_kt_close(context, from);
}

static void get_ticket(const char *keytab_name, const char *principal_name, const char *cache_name)
{
    krb5_context context;
    krb5_principal principal;
    krb5_keytab keytab;
    krb5_creds credentials;
    krb5_ccache cache;
    krb5_get_init_creds_opt *options;
    krb5_preauthtype first[] = {KRB5_PADATA_ENC_TIMESTAMP};

    check(krb5_init_context(&context), "context");
    check(krb5_parse_name(context, principal_name, &principal), "principal");
    check(krb5_kt_resolve(context, keytab_name, &keytab), "keytab");
    check(krb5_get_init_creds_opt_alloc(context, &options), "options");
    if (once)
        krb5_get_init_creds_opt_set_preauth_list(options, first, 1);
    check(krb5_get_init_creds_keytab(context, &credentials, principal, keytab, 0, NULL, options),
          "AS exchange");
    check(krb5_cc_resolve(context, cache_name, &cache), "cache");
    check(krb5_cc_initialize(context, cache, principal), "cache");
    check(krb5_cc_store_cred(context, cache, &credentials), "cache");
    krb5_get_init_creds_opt_free(context, options);
    krb5_free_cred_contents(context, &credentials);
    krb5_cc_close(context, cache);
    krb5_kt_close(context, keytab);
    krb5_free_principal(context, principal);
    krb5_free_context(context);
}

static LDAP *bound(const char *uri)
{
    LDAP *ld;
    int version = LDAP_VERSION3;

    check(ldap_initialize(&ld, uri), "initialize");
    ldap_set_option(ld, LDAP_OPT_PROTOCOL_VERSION, &version);
    ldap_set_option(ld, LDAP_OPT_REFERRALS, LDAP_OPT_OFF);
    ldap_set_option(ld, LDAP_OPT_X_SASL_NOCANON, LDAP_OPT_ON);
    check(ldap_set_option(ld, LDAP_OPT_X_SASL_SECPROPS, "minssf=56"), "sealing");
    check(ldap_sasl_interactive_bind_s(ld, NULL, "GSSAPI", NULL, NULL, LDAP_SASL_QUIET, interact,
                                       NULL),
          "bind");
    return ld;
}

static void read_password(LDAP *ld, const char *base, const char *account)
{
    LDAPMessage *found;
    char filter[128], *attributes[] = {"msDS-ManagedPassword", NULL};

    snprintf(filter, sizeof filter, "(sAMAccountName=%s$)", account);
    check(ldap_search_ext_s(ld, base, LDAP_SCOPE_SUBTREE, filter, attributes, 0, NULL, NULL, NULL,
                            1, &found),
          "search");
    check(ldap_count_entries(ld, found) != 1, "entries");
    ldap_msgfree(found);
}

int main(int argc, char **argv)
{
    char account[64], principal[256];
    LDAP *ld = NULL;
    krb5_context context;

    check(argc != 8, "arguments");
    once = strcmp(argv[1], "cold") != 0;
    setenv("KRB5CCNAME", "MEMORY:floor-host", 1);
    check(krb5_init_context(&context), "context");
    load_keytab(context, argv[2], "MEMORY:host");
    load_keytab(context, argv[4], "MEMORY:accounts");
    while (fgets(account, sizeof account, stdin)) {
        struct timespec from, to;

        account[strcspn(account, "\n")] = 0;
        snprintf(principal, sizeof principal, "%s$@%s", account, argv[5]);
        clock_gettime(CLOCK_MONOTONIC, &from);
        if (!ld) {
            get_ticket("MEMORY:host", argv[3], "MEMORY:floor-host");
            ld = bound(argv[6]);
        }
        read_password(ld, argv[7], account);
        if (strncmp(argv[1], "cold", 4) == 0) {
            ldap_unbind_ext_s(ld, NULL, NULL);
            ld = NULL;
        }
        get_ticket("MEMORY:accounts", principal, "MEMORY:floor-account");
        clock_gettime(CLOCK_MONOTONIC, &to);
        printf("%ld\n", (to.tv_sec - from.tv_sec) * 1000000 + (to.tv_nsec - from.tv_nsec) / 1000);
        fflush(stdout);
    }
    return 0;
}
