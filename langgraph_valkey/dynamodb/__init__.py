"""The primary store on DynamoDB."""
