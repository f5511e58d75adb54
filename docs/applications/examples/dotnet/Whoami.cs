using System;
using System.Data.SqlClient;
using System.Net;
using System.Net.Http;

public static class Whoami
{
    public static int Main(string[] arguments)
    {
        return arguments[0] == "sql" ? Sql(arguments[1]) : Http(arguments[1]);
    }

    private static int Sql(string server)
    {
        using (var connection = new SqlConnection($"Server={server};Integrated Security=true"))
        {
            connection.Open();
            using (var command = new SqlCommand("SELECT SYSTEM_USER", connection))
            {
                Console.WriteLine(command.ExecuteScalar());
            }
        }
        return 0;
    }

    private static int Http(string address)
    {
        var handler = new HttpClientHandler { UseDefaultCredentials = true };
        using (var client = new HttpClient(handler))
        {
            HttpResponseMessage answer = client.GetAsync(address).GetAwaiter().GetResult();
            Console.Write(answer.Content.ReadAsStringAsync().GetAwaiter().GetResult());
            return answer.IsSuccessStatusCode ? 0 : 1;
        }
    }
}
